"""The pool of synthetic images and its split into fragile and robust images, as plain tensors with save and load."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dfkd.domains import to_float


@dataclass
class Split:
    """The division of images into ID-like and OOD-like ones by a defense.

    Attributes:
        fragile: (B,), bool. True: fragile, that is ID-like, and distilled. False: robust, that is OOD-like, and
            forgotten.
        score: (B,), float: the value from which the criterion decides; its meaning and scale depend on the criterion.
    """

    fragile: Tensor
    score: Tensor

    @staticmethod
    def everything(images: Tensor) -> "Split":
        """Return a split that calls every image fragile."""
        return Split(
            torch.ones(len(images), dtype=torch.bool, device=images.device),
            torch.zeros(len(images), device=images.device),
        )


@dataclass
class Pool:
    """Synthetic images with the teacher's logits, their split and further columns, one value per image.

    Args:
        capacity: largest number of images; if there are more, the oldest are dropped. None: no limit.

    Attributes:
        images: (N, C, H, W), uint8 or float; CAKE's float images may have values outside of [0, 1]. They may be in the
            CPU's memory while all other tensors are on a GPU (`to`).
        logits: (N, classes), the teacher's logits, computed once per image.
        split: the split of the images.
        columns: {name: (N,)}.
    """

    capacity: int | None = None
    images: Tensor | None = None
    logits: Tensor | None = None
    split: Split | None = None
    columns: dict[str, Tensor] = field(default_factory=dict)
    # buffers into which `add` writes, the number of rows in use, and the views of them that are the current tensors
    _room: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)
    _end: int = field(default=0, init=False, repr=False, compare=False)
    _shown: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self):
        if self.capacity is not None and self.capacity < 1:
            raise ValueError(f"a pool's capacity must be at least 1 (or null for no limit), got {self.capacity}")

    def __len__(self) -> int:
        return 0 if self.images is None else len(self.images)

    def pixels(self, index: Tensor | slice = slice(None)) -> Tensor:
        """Return the chosen images (B, C, H, W) as float32, on the device of the logits.

        Args:
            index: indices (B,), a mask (N,), or a slice. If the images are on another device than the logits, the index
                should be on the device of the images. Otherwise it must be copied there, which waits for the GPU, and
                the images cannot be transferred while the GPU computes.
        """
        device = self.images.device if self.logits is None else self.logits.device
        if self.images.device == device:
            return to_float(self.images[index])
        chosen = self.images[index.to(self.images.device) if isinstance(index, Tensor) else index]
        if device.type == "cuda":
            chosen = chosen.pin_memory()  # only a transfer from pinned memory is asynchronous
        return to_float(chosen.to(device, non_blocking=True))

    def add(self, images: Tensor, logits: Tensor, split: Split, columns: dict[str, Tensor] | None = None) -> None:
        """Append images; the oldest ones are dropped if there are more than the capacity.

        Args:
            images: (B, C, H, W).
            logits: (B, classes), of the teacher.
            split: the split of these images.
            columns: {name: (B,)}; the same names as in the pool.

        Raises:
            ValueError: the columns have other names than those of the pool.
        """
        fresh = Pool(None, images, logits, split, columns or {})._tensors()
        old = self._tensors() if self.images is not None else {name: value[:0] for name, value in fresh.items()}
        if old.keys() != fresh.keys():
            raise ValueError(f"the pool has the columns {sorted(old)}, the new images have {sorted(fresh)}")
        limit = len(self) + len(images) if self.capacity is None else self.capacity
        count = min(len(images), limit)
        remaining = min(len(self), limit - count)
        end = self._end + count
        ours = all(value is self._shown.get(name) for name, value in old.items())
        if ours and end <= len(self._room["images"]):
            for name, value in fresh.items():
                self._room[name][self._end : end] = value[len(value) - count :]
        else:  # new buffers, with free rows for as many images again
            end = remaining + count
            parts = {
                name: (value[len(value) - remaining :], fresh[name][len(images) - count :])
                for name, value in old.items()
            }
            self._room = {name: torch.cat([*part, *map(torch.empty_like, part)]) for name, part in parts.items()}
        self._end = end
        self._set({name: value[end - remaining - count : end] for name, value in self._room.items()})
        self._shown = self._tensors()

    def checkpoint_state(self) -> dict:
        """Return the state for a checkpoint: everything except the buffers of `add`."""
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def select(self, ranges: dict[str, tuple[float, float]]) -> "Pool":
        """Return a pool of the images whose columns are in the given ranges; the pool itself if no range is given.

        Args:
            ranges: {column: (low, high)}, both ends included.

        Raises:
            ValueError: a column does not exist, or no image is left.
        """
        if not ranges:
            return self  # a mask would copy everything
        mask = torch.ones(len(self), dtype=torch.bool, device=self.logits.device)
        for name, (low, high) in ranges.items():
            if name not in self.columns:
                raise ValueError(f"student.keep.{name}: this pool has no such column, only {sorted(self.columns)}")
            mask &= (self.columns[name] >= low) & (self.columns[name] <= high)
        if not mask.any():
            raise ValueError(f"student.keep={ranges} leaves none of the pool's {len(self)} images")
        chosen = Pool(self.capacity)
        chosen._set({name: value[mask.to(value.device)] for name, value in self._tensors().items()})
        return chosen

    def to(self, device: torch.device, device_for: Callable[[int], torch.device]) -> "Pool":
        """Return the pool with its tensors on a device.

        Args:
            device: the device for all tensors except the images.
            device_for: gets the size of the images in bytes and returns the device for them (`Runtime.pool_device`).
        """
        moved = Pool(self.capacity)
        tensors = {name: value.to(device) for name, value in self._tensors().items() if name != "images"}
        moved._set(tensors | {"images": self.images.to(device_for(self.images.nbytes))})
        return moved

    def save(self, path: Path) -> None:
        """Write the pool into one safetensors file."""
        save_file({name: value.contiguous().cpu() for name, value in self._tensors().items()}, path)

    @staticmethod
    def load(path: Path) -> "Pool":
        pool = Pool()
        pool._set(load_file(path))
        return pool

    def checkpoint_expect(self, data: dict) -> None:
        """Create an empty split if the checkpoint has one, so that it can be restored (`dfkd.resume.state`)."""
        self.split = Split(None, None) if data["split"] is not None else None

    def _tensors(self) -> dict[str, Tensor]:
        own = {"images": self.images, "logits": self.logits, "fragile": self.split.fragile, "score": self.split.score}
        return own | {f"column.{name}": value for name, value in self.columns.items()}

    def _set(self, tensors: dict[str, Tensor]) -> None:
        self.images, self.logits = tensors["images"], tensors["logits"]
        self.split = Split(tensors["fragile"], tensors["score"])
        self.columns = {
            name.removeprefix("column."): value for name, value in tensors.items() if name.startswith("column.")
        }


class Stack:
    """Concatenates batches into one tensor that is allocated once. `torch.cat` would need twice the memory.

    Args:
        device_for: gets the size of the tensor in bytes and returns its device (`Runtime.pool_device`).
    """

    def __init__(self, device_for: Callable[[int], torch.device]):
        self.device_for, self.length = device_for, 0
        self.rows: Tensor | None = None

    def add(self, batch: Tensor, expected: int) -> None:
        """Append a batch (B, ...).

        Args:
            batch: the rows to append.
            expected: expected number of rows of the whole tensor. More rows are possible, but cost a copy.
        """
        end = self.length + len(batch)
        if self.rows is None or end > len(self.rows):
            old, count = self.rows, max(end, expected)
            self.rows = batch.new_empty(count, *batch.shape[1:], device=self.device_for(batch[:1].nbytes * count))
            if old is not None:
                self.rows[: self.length] = old[: self.length]
        self.rows[self.length : end] = batch
        self.length = end

    def tensor(self) -> Tensor:
        """Return all rows that were added so far, as one tensor (N, ...)."""
        return self.rows[: self.length]

    def checkpoint_state(self) -> dict:
        """Return the state for a checkpoint: the rows so far, without the free space for later ones."""
        return {"length": self.length, "rows": None if self.rows is None else self.tensor()}
