"""Domains: labelled images with a train, a validation and a test split."""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd.domains.modality import IMAGES, Modality


@dataclass(frozen=True)
class Images:
    """Labelled images in memory; they never change.

    Attributes:
        x: (N, C, H, W); uint8 in 0..255, or float, nominally in [0, 1].
        y: class labels (N,), int64.
    """

    x: Tensor
    y: Tensor

    def __post_init__(self):
        if len(self.x) != len(self.y):
            raise ValueError(f"{len(self.x)} images but {len(self.y)} labels")

    def __len__(self) -> int:
        return len(self.x)

    def pixels(self, index: Tensor | slice = slice(None)) -> Tensor:
        """The chosen images as float32, 8-bit ones divided by 255."""
        return to_float(self.x[index])

    def take(self, index: Tensor | slice) -> "Images":
        return Images(self.x[index], self.y[index])

    def to(self, device: torch.device | str) -> "Images":
        return Images(self.x.to(device), self.y.to(device))


@dataclass
class Domain:
    """A data set as the rest of the package sees it.

    Attributes:
        name: for tables and messages.
        classes: number of classes; labels are 0 .. classes - 1.
        train, val: disjoint seeded parts of the set's training images.
        test: the set's test images, for reporting only.
        mean, std: per-channel normalisation, length C.
        modality: what kind of thing the examples are: images, points, embeddings.

    Raises:
        ValueError: a part without examples, a label that is no class, or examples that do not fit the modality.
    """

    name: str
    classes: int
    train: Images
    val: Images
    test: Images
    mean: list[float] = field(default_factory=list)
    std: list[float] = field(default_factory=list)
    modality: Modality = IMAGES

    def __post_init__(self):
        for split in ("train", "val", "test"):
            images = getattr(self, split)
            if len(images) == 0:
                raise ValueError(f"domain '{self.name}' has no {split} images")
            low, high = int(images.y.min()), int(images.y.max())
            if low < 0 or high >= self.classes:
                raise ValueError(f"domain '{self.name}' has labels {low}..{high} in {split}, not 0..{self.classes - 1}")
        self.modality.check(self.name, self.shape)
        if not self.mean:
            pixels = self.train.pixels(slice(0, 10_000))
            self.mean = [round(v, 4) for v in pixels.mean(dim=(0, 2, 3)).tolist()]
            self.std = [round(max(v, 1e-3), 4) for v in pixels.std(dim=(0, 2, 3)).tolist()]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return tuple(self.train.x.shape[1:])


def to_float(x: Tensor) -> Tensor:
    """8-bit images to float32 in [0, 1]; float images as they are."""
    return x.float() / 255 if x.dtype == torch.uint8 else x.float()


def fit_images(x: Tensor, size: int | None, channels: int | None) -> Tensor:
    """Resize (antialiased, bilinear) and convert between grey and colour; 8-bit images stay 8-bit.

    Args:
        x: (N, C, H, W), uint8 or float.
        size: side of the result, or None to keep the size.
        channels: 1 (luma, ITU-R 601), 3 (grey repeated), or None to keep them.

    Raises:
        ValueError: there is no conversion from C to `channels`.
    """
    if channels not in (None, x.shape[1], 1, 3) or (channels not in (None, x.shape[1]) and x.shape[1] not in (1, 3)):
        raise ValueError(f"cannot turn images of {x.shape[1]} channels into {channels}; channels is 1, 3 or null")
    if size is not None and (x.shape[2], x.shape[3]) != (size, size):
        parts = [
            F.interpolate(part.float(), (size, size), mode="bilinear", antialias=True, align_corners=False)
            for part in x.split(2000)
        ]
        x = torch.cat([_as(part, x.dtype) for part in parts])
    if channels == 3 and x.shape[1] == 1:
        x = x.expand(-1, 3, -1, -1).contiguous()
    elif channels == 1 and x.shape[1] == 3:
        luma = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
        x = torch.cat([_as((part.float() * luma).sum(1, keepdim=True), x.dtype) for part in x.split(2000)])
    return x


def _as(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x.round().clamp(0, 255).to(torch.uint8) if dtype == torch.uint8 else x


def carve(images: Images, share: float, seed: int) -> tuple[Images, Images]:
    """Split off a seeded random validation part.

    Args:
        share: of the images that go to validation, in (0, 1).

    Returns:
        (train, validation), disjoint.

    Raises:
        ValueError: share is not in (0, 1).
    """
    if not 0 < share < 1:
        raise ValueError(f"val_share must lie in (0, 1), got {share}")
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    count = max(1, round(share * len(images)))
    return images.take(order[count:]), images.take(order[:count])


def limited(images: Images, limit: int | None, seed: int) -> Images:
    """At most `limit` images, a seeded random choice; all of them if `limit` is None."""
    if limit is None or limit >= len(images):
        return images
    if limit < 1:
        raise ValueError(f"a domain needs at least one image, got a limit of {limit}")
    return images.take(torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:limit])
