"""Random augmentation of whole batches on their device, with independent random numbers for each image.

The numbers are drawn first (`draw`). What is made with them depends on its arguments alone, so that it can be recorded
as a CUDA graph, which cannot draw from a `torch.Generator`.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def reach(height: int) -> int:
    """Return the largest shift of an augmented image in pixels: an eighth of its height, at least 1."""
    return max(1, height // 8)


def draw_shifts(count: int, pad: int, generator: torch.Generator) -> Tensor:
    """Draw the shifts of `crop` (2, count): down and right, uniform in 0 .. 2 * pad, where `pad` means no shift."""
    return torch.randint(2 * pad + 1, (2, count), generator=generator, device=generator.device)


def draw_coins(count: int, generator: torch.Generator) -> Tensor:
    """Draw (count,), bool, each True with probability 1/2."""
    return torch.rand(count, generator=generator, device=generator.device) < 0.5


def crop(images: Tensor, pad: int, shifts: Tensor, border: str = "edge") -> Tensor:
    """Shift every image (B, C, H, W) by up to `pad` pixels along each axis. Differentiable.

    Args:
        shifts: see `draw_shifts`.
        border: what fills the pixels that come in from outside: 'edge' (the nearest pixel of the image) or 'black'
            (zeros, as torchvision's and kornia's RandomCrop).
    """
    n, c, h, w = images.shape
    padded = F.pad(images, (pad, pad, pad, pad), mode="replicate" if border == "edge" else "constant")
    top, left = shifts
    rows = (top[:, None] + torch.arange(h, device=images.device)).view(n, 1, h, 1)
    columns = (left[:, None] + torch.arange(w, device=images.device)).view(n, 1, 1, w)
    which = torch.arange(n, device=images.device).view(n, 1, 1, 1)
    channel = torch.arange(c, device=images.device).view(1, c, 1, 1)
    return padded[which, channel, rows, columns]


def flip(images: Tensor, mirrored: Tensor) -> Tensor:
    """Mirror images (B, C, H, W) left to right where `mirrored` (B,), bool, is True."""
    return torch.where(mirrored[:, None, None, None], images.flip(3), images)


def resized_crop(images: Tensor, smallest: float, mirror: bool, numbers: Tensor) -> Tensor:
    """Crop a random rectangle of every image (B, C, H, W) and resize it to the full size (bilinear). Differentiable.

    The area of the rectangle, as a share of the image, is uniform in [smallest, 1], and the logarithm of its aspect
    ratio in [log 3/4, log 4/3]. A side longer than the image is cut to the length of the image.

    Args:
        smallest: smallest area as a share of the image.
        mirror: whether to mirror each crop left to right with probability 1/2.
        numbers: (5, B), random numbers in [0, 1).
    """
    area, ratio, x, y, side = numbers
    area = smallest + (1 - smallest) * area
    ratio = ((2 * ratio - 1) * math.log(4 / 3)).exp()
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    x, y = (2 * x - 1) * (1 - width), (2 * y - 1) * (1 - height)
    if mirror:
        width = torch.where(side < 0.5, -width, width)
    zero = torch.zeros_like(x)
    part = torch.stack([torch.stack([width, zero, x], 1), torch.stack([zero, height, y], 1)], 1)
    grid = F.affine_grid(part, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def cut_mix(images: Tensor, donor: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Paste a box from another image of the batch into each image with probability 1/2 (CutMix, arXiv 1905.04899).

    The height and width of the box are uniform between a quarter and three quarters of the image's. The box has the
    same position in both images.

    Args:
        donor: (B,), a random permutation of 0 .. B - 1: the image that a box comes from.
        numbers: (5, B), random numbers in [0, 1).

    Returns:
        the images (B, C, H, W), and for every image the index of the image that its box comes from (B,): its own index
        where nothing was pasted.
    """
    pasted, *extents = numbers
    donor = torch.where(pasted < 0.5, donor, torch.arange(len(images), device=images.device))
    return torch.where(_inside(images.shape, extents, 0.25, 0.75), images[donor], images), donor


def boxes(
    count: int, shape: tuple[int, ...], generator: torch.Generator, shortest: float = 0.25, longest: float = 0.75
) -> Tensor:
    """Draw random boxes as masks (count, 1, H, W), bool, for images of a shape (..., H, W).

    Args:
        shortest, longest: range of a box's height and width, as shares of the image's.
    """
    extents = torch.rand(4, count, generator=generator, device=generator.device)
    return _inside(shape, extents, shortest, longest)


def _inside(shape: tuple[int, ...], extents: Sequence[Tensor], low: float, high: float) -> Tensor:
    """Return masks (B, 1, H, W), bool, of boxes.

    Args:
        extents: height, top, width and left side of every box, each (B,), as random numbers in [0, 1).
        low, high: as `shortest` and `longest` of `boxes`.
    """

    def span(length: int, side: Tensor, start: Tensor) -> Tensor:  # (B, length), bool: rows or columns of the box
        shortest, longest = int(low * length), int(high * length)
        side = shortest + (side * (longest - shortest + 1)).long()
        start = (start * (length - side + 1)).long()[:, None]
        position = torch.arange(length, device=side.device)
        return (position >= start) & (position < start + side[:, None])

    height, top, width, left = extents
    return span(shape[-2], height, top)[:, None, :, None] & span(shape[-1], width, left)[:, None, None, :]


AUGMENTATIONS = ("none", "shift", "crop_flip", "black_crop_flip")


def draw(how: str, count: int, height: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Draw the random numbers of `augment` or, for `how='cut_mix'`, of `cut_mix`, for `count` images of a height."""
    if how == "none":
        return ()
    if how == "cut_mix":
        donor = torch.randperm(count, generator=generator, device=generator.device)
        return donor, torch.rand(5, count, generator=generator, device=generator.device)
    shifts = draw_shifts(count, reach(height), generator)
    return (shifts,) if how == "shift" else (shifts, draw_coins(count, generator))


def augment(images: Tensor, how: str, *drawn: Tensor) -> Tensor:
    """Augment images (B, C, H, W).

    Args:
        how: 'none'; 'shift' (by up to an eighth of the height along each axis, the border filled with edge pixels);
            'crop_flip' (shift, then mirror with probability 1/2); 'black_crop_flip' (the same with a black border: at
            32 pixels this is RandomCrop(32, padding=4) and RandomHorizontalFlip, which CIFAR's public codes use).
        drawn: the random numbers (`draw`).
    """
    if how == "none":
        return images
    shifts, *mirrored = drawn
    shifted = crop(images, reach(images.shape[2]), shifts, "black" if how == "black_crop_flip" else "edge")
    return flip(shifted, *mirrored) if mirrored else shifted
