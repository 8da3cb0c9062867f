"""Random augmentation of whole batches on their device, every image on its own."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def crop(images: Tensor, pad: int, generator: torch.Generator) -> Tensor:
    """Shift every image by up to `pad` pixels in both directions, filling with its edge pixels (replicate)."""
    n, c, h, w = images.shape
    padded = F.pad(images, (pad, pad, pad, pad), mode="replicate")
    top, left = torch.randint(2 * pad + 1, (2, n), generator=generator, device=images.device)
    rows = (top[:, None] + torch.arange(h, device=images.device)).view(n, 1, h, 1)
    columns = (left[:, None] + torch.arange(w, device=images.device)).view(n, 1, 1, w)
    which = torch.arange(n, device=images.device).view(n, 1, 1, 1)
    channel = torch.arange(c, device=images.device).view(1, c, 1, 1)
    return padded[which, channel, rows, columns]


def flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror half of the images left to right, by chance."""
    mirrored = torch.rand(len(images), 1, 1, 1, generator=generator, device=images.device) < 0.5
    return torch.where(mirrored, images.flip(3), images)


def resized_crop(images: Tensor, smallest: float, mirror: bool, generator: torch.Generator) -> Tensor:
    """A random part of every image, brought to the full size (bilinear), possibly mirrored; gradients pass.

    Args:
        smallest: the part's area as a share of the image lies in [smallest, 1]; its sides' ratio in [3/4, 4/3], both
            drawn uniformly (the ratio in logarithm) and cut off where they leave the image.
        mirror: mirror half of the parts, by chance.
    """
    n = len(images)
    area, ratio, x, y, side = torch.rand(5, n, generator=generator, device=images.device)
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


def cut_mix(images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Paste a box of another image of the batch into half of the images, by chance (CutMix, arXiv 1905.04899).

    The box's sides are drawn uniformly between a quarter and three quarters of the image's; it keeps its place.

    Returns:
        the images, and the donor of every image's box (B,): its own index where nothing was pasted.
    """
    n, _, height, width = images.shape
    device = images.device
    donor = torch.randperm(n, generator=generator, device=device)
    pasted, *place = torch.rand(5, n, generator=generator, device=device)
    donor = torch.where(pasted < 0.5, donor, torch.arange(n, device=device))

    def inside(length: int, side: Tensor, start: Tensor) -> Tensor:  # (B, length): the box's rows, or its columns
        shortest, longest = length // 4, length * 3 // 4
        side = shortest + (side * (longest - shortest + 1)).long()
        start = (start * (length - side + 1)).long()[:, None]
        position = torch.arange(length, device=device)
        return (position >= start) & (position < start + side[:, None])

    box = inside(height, *place[:2])[:, None, :, None] & inside(width, *place[2:])[:, None, None, :]
    return torch.where(box, images[donor], images), donor


AUGMENTATIONS = ("none", "shift", "crop_flip")


def augment(images: Tensor, how: str, generator: torch.Generator) -> Tensor:
    """Apply 'none', 'shift' (by up to an eighth of the side) or 'crop_flip' (shift and mirror)."""
    if how == "none":
        return images
    shifted = crop(images, max(1, images.shape[2] // 8), generator)
    return flip(shifted, generator) if how == "crop_flip" else shifted
