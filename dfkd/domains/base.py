"""Domains: labelled images with a train, a validation and a test split."""

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd.domains.modality import IMAGES, Modality


@dataclass(frozen=True)
class Images:
    """Labelled images in memory, immutable.

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
        """Return the images at `index` as float32; 8-bit images are divided by 255."""
        return to_float(self.x[index])

    def take(self, index: Tensor | slice) -> "Images":
        return Images(self.x[index], self.y[index])

    def to(self, device: torch.device | str) -> "Images":
        return Images(self.x.to(device), self.y.to(device))


@dataclass
class Domain:
    """A data set with its splits, in the form that the rest of the package uses.

    Attributes:
        name: name in tables and messages.
        classes: number of classes; labels are 0 .. classes - 1.
        train, val: disjoint seeded parts of the set's training images.
        test: the set's test images, for reporting only.
        mean, std: normalisation per channel, length C; measured on the training images if empty.
        modality: kind of the examples: images, points or embeddings.
        notes: messages to the user about how the data was read.

    Raises:
        ValueError: a split is empty, has examples of another shape, NaN or infinite values, or labels outside
            0 .. classes - 1; examples do not fit the modality; a std is not positive; or mean and std are those of
            images in 0..255.
    """

    name: str
    classes: int
    train: Images
    val: Images
    test: Images
    mean: list[float] = field(default_factory=list)
    std: list[float] = field(default_factory=list)
    modality: Modality = IMAGES
    notes: list[str] = field(default_factory=list)

    def __post_init__(self):
        for split in ("train", "val", "test"):
            self._check(split, getattr(self, split))
        self.modality.check(self.name, self.shape)
        if self.mean:
            check_normalisation(self.mean, self.std, self.modality.box)
        else:
            pixels = self.train.pixels(slice(0, 10_000))
            self.mean = [round(v, 4) for v in pixels.mean(dim=(0, 2, 3)).tolist()]
            self.std = [round(max(v, 1e-3), 4) for v in pixels.std(dim=(0, 2, 3)).tolist()]

    def _check(self, split: str, images: Images) -> None:
        """Raise ValueError if a split violates the contract of `Images`, or its images differ in shape from `train`."""
        what, x, y = f"domain '{self.name}' has", images.x, images.y
        if len(images) == 0:
            raise ValueError(f"{what} no {split} images")
        if y.dim() != 1 or y.dtype != torch.int64:
            raise ValueError(f"{what} {split} labels of shape {tuple(y.shape)} and {y.dtype}; use (N,), torch.int64")
        low, high = int(y.min()), int(y.max())
        if low < 0 or high >= self.classes:
            raise ValueError(f"{what} labels {low}..{high} in {split}, not 0..{self.classes - 1}")
        if x.dim() != 4 or (x.dtype != torch.uint8 and not x.is_floating_point()):
            raise ValueError(
                f"{what} {split} images of shape {tuple(x.shape)} and {x.dtype}; use (N, C, H, W), torch.uint8 or float"
            )
        if x.shape[1:] != self.train.x.shape[1:]:
            sizes = ["x".join(map(str, images.shape[1:])) for images in (self.train.x, x)]
            raise ValueError(
                f"{what} {sizes[0]} training images and {sizes[1]} {split} images; set data.size and data.channels to "
                f"bring them together"
            )
        if x.is_floating_point() and not all(value.isfinite() for value in x.aminmax()):
            raise ValueError(f"{what} {split} images with NaN or infinite pixels; leave them out")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return tuple(self.train.x.shape[1:])


def check_normalisation(mean: list[float], std: list[float], box: tuple[float, float] | None) -> None:
    """Raise ValueError if mean or std are not finite, std is not positive, or one seems to be for images in 0..255.

    Args:
        box: range of pixel values; None if there is none.
    """
    text = f"mean={list(mean)} std={list(std)}"
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in (*mean, *std)):
        raise ValueError(f"{text} must be finite numbers")
    if any(value <= 0 for value in std):
        raise ValueError(f"std must be positive, got {list(std)}")
    if box is None:
        return
    mean_is_large, std_is_large = (max(map(abs, values), default=0) > 2 * max(map(abs, box)) for values in (mean, std))
    if mean_is_large or std_is_large:
        small = [float(f"{value / 255:.4g}") for value in mean] if mean_is_large else list(mean)
        raise ValueError(
            f"{text} seem to be of images in 0..255, and images are in [0, 1] here; divide by 255: mean={small} "
            f"std={[float(f'{value / 255:.4g}') for value in std]}"
        )


def to_float(x: Tensor) -> Tensor:
    """Convert 8-bit images to float32 in [0, 1], and float images to float32 with unchanged values."""
    return x.float() / 255 if x.dtype == torch.uint8 else x.float()


def fit_images(x: Tensor, size: int | None, channels: int | None) -> Tensor:
    """Resize images (antialiased, bilinear) and convert between grey and colour; 8-bit images stay 8-bit.

    Args:
        x: (N, C, H, W), uint8 or float.
        size: side of the result in pixels; None means no resizing.
        channels: 1 (luma, ITU-R 601), 3 (grey repeated), or None for no conversion.

    Raises:
        ValueError: images of C channels cannot be converted to `channels`.
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


def split_validation(images: Images, share: float, seed: int) -> tuple[Images, Images]:
    """Split off a random validation part, with a seed.

    Args:
        share: share of the images for validation, in (0, 1).

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


def subsample(images: Images, limit: int | None, seed: int) -> Images:
    """Return at most `limit` images, chosen at random with a seed; all of them if `limit` is None.

    Raises:
        ValueError: limit < 1.
    """
    if limit is None or limit >= len(images):
        return images
    if limit < 1:
        raise ValueError(f"a domain needs at least one image, got a limit of {limit}")
    return images.take(torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:limit])
