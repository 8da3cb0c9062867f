"""The pool of synthetic images and the split of it: plain tensors with save and load."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dfkd.domains import to_float


@dataclass
class Split:
    """Which images a defense takes for ID-like.

    Attributes:
        fragile: (B,), bool: ID-like, distilled. The others are robust: OOD-like, forgotten.
        score: (B,), float: what the decision stands on; the meaning and scale are the criterion's.
    """

    fragile: Tensor
    score: Tensor

    @staticmethod
    def everything(images: Tensor) -> "Split":
        """A split that calls every image fragile."""
        return Split(
            torch.ones(len(images), dtype=torch.bool, device=images.device),
            torch.zeros(len(images), device=images.device),
        )


@dataclass
class Pool:
    """Synthetic images with the teacher's logits, their split and more per-image columns.

    Args:
        capacity: the oldest images are dropped beyond this many; None keeps everything.

    Attributes:
        images: (N, C, H, W), uint8 or float; CAKE's floats may leave [0, 1]. They may lie in the CPU's memory while all
            else is on a GPU (`place`).
        logits: the teacher's (N, classes), computed once per image.
        split: of the images.
        columns: name -> (N,).
    """

    capacity: int | None = None
    images: Tensor | None = None
    logits: Tensor | None = None
    split: Split | None = None
    columns: dict[str, Tensor] = field(default_factory=dict)
    # what `add` writes into, up to where, and the parts of it that were shown last
    _room: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)
    _end: int = field(default=0, init=False, repr=False, compare=False)
    _shown: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self):
        if self.capacity is not None and self.capacity < 1:
            raise ValueError(f"a pool's capacity must be at least 1 (or null for no limit), got {self.capacity}")

    def __len__(self) -> int:
        return 0 if self.images is None else len(self.images)

    def pixels(self, index: Tensor | slice = slice(None)) -> Tensor:
        """The chosen images as float32, on the device of the logits.

        Args:
            index: on the images' own device, or that device waits for it. Images of another one are then collected and
                sent while it still computes.
        """
        device = self.images.device if self.logits is None else self.logits.device
        if self.images.device == device:
            return to_float(self.images[index])
        chosen = self.images[index.to(self.images.device) if isinstance(index, Tensor) else index]
        if device.type == "cuda":
            chosen = chosen.pin_memory()  # only from there a transfer leaves the host free
        return to_float(chosen.to(device, non_blocking=True))

    def add(self, images: Tensor, logits: Tensor, split: Split, columns: dict[str, Tensor] | None = None) -> None:
        """Append images; the oldest go beyond the capacity."""
        fresh = Pool(None, images, logits, split, columns or {})._tensors()
        old = self._tensors() if self.images is not None else {name: value[:0] for name, value in fresh.items()}
        if old.keys() != fresh.keys():
            raise ValueError(f"the pool has the columns {sorted(old)}, the new images have {sorted(fresh)}")
        limit = len(self) + len(images) if self.capacity is None else self.capacity
        count = min(len(images), limit)
        keep = min(len(self), limit - count)
        end = self._end + count
        ours = all(value is self._shown.get(name) for name, value in old.items())
        if ours and end <= len(self._room["images"]):
            for name, value in fresh.items():
                self._room[name][self._end : end] = value[len(value) - count :]
        else:  # to a place with room for as many again
            end = keep + count
            parts = {
                name: (value[len(value) - keep :], fresh[name][len(images) - count :]) for name, value in old.items()
            }
            self._room = {name: torch.cat([*part, *map(torch.empty_like, part)]) for name, part in parts.items()}
        self._end = end
        self._set({name: value[end - keep - count : end] for name, value in self._room.items()})
        self._shown = self._tensors()

    def checkpoint_state(self) -> dict:
        """For a checkpoint: all but the room for images to come."""
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def keep(self, ranges: dict[str, tuple[float, float]]) -> "Pool":
        """The images whose columns lie in the given closed ranges; the pool itself where there are none.

        Raises:
            ValueError: there is no such column, or no image is left.
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
        kept = Pool(self.capacity)
        kept._set({name: value[mask.to(value.device)] for name, value in self._tensors().items()})
        return kept

    def place(self, device: torch.device, home: Callable[[int], torch.device]) -> "Pool":
        """The pool on a device.

        Args:
            home: where so many bytes of images are to lie (`Runtime.home`).
        """
        placed = Pool(self.capacity)
        tensors = {name: value.to(device) for name, value in self._tensors().items() if name != "images"}
        placed._set(tensors | {"images": self.images.to(home(self.images.nbytes))})
        return placed

    def save(self, path: Path) -> None:
        """Write the pool into one safetensors file."""
        save_file({name: value.contiguous().cpu() for name, value in self._tensors().items()}, path)

    @staticmethod
    def load(path: Path) -> "Pool":
        pool = Pool()
        pool._set(load_file(path))
        return pool

    def checkpoint_expect(self, data: dict) -> None:
        """Make the split that a checkpoint has (`dfkd.resume.state`)."""
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
    """Batches one after the other in one tensor: `torch.cat` without everything twice in memory.

    Args:
        home: where so many bytes are to lie (`Runtime.home`).
    """

    def __init__(self, home: Callable[[int], torch.device]):
        self.home, self.length = home, 0
        self.rows: Tensor | None = None

    def add(self, batch: Tensor, expected: int) -> None:
        """Append a batch (B, ...).

        Args:
            expected: rows in the end. More are taken too, at the price of a copy.
        """
        end = self.length + len(batch)
        if self.rows is None or end > len(self.rows):
            old, count = self.rows, max(end, expected)
            self.rows = batch.new_empty(count, *batch.shape[1:], device=self.home(batch[:1].nbytes * count))
            if old is not None:
                self.rows[: self.length] = old[: self.length]
        self.rows[self.length : end] = batch
        self.length = end

    def tensor(self) -> Tensor:
        """Return all rows that were added so far, in one tensor."""
        return self.rows[: self.length]

    def checkpoint_state(self) -> dict:
        """For a checkpoint: the rows so far, without the room for those to come."""
        return {"length": self.length, "rows": None if self.rows is None else self.tensor()}
