"""Procedural textures: an OOD domain with classes of its own, without a download."""

import math

import torch
from torch import Tensor

from dfkd.domains.base import Domain, Images
from dfkd.domains.training_split import alter_training

KINDS = ("stripes", "checks", "rings", "noise")


def textures(
    size: int | None = 16,
    channels: int | None = None,
    train: int = 2000,
    val: int = 500,
    test: int = 500,
    split_seed: int = 0,
    limit: int | None = None,
    imbalance: float | None = None,
    label_noise: float | None = None,
) -> Domain:
    """Draw images of four kinds of textures (the classes), with a random angle, scale, position and two random colours.

    All kinds are equally frequent.

    Args:
        size: side in pixels, or None for 16.
        channels: 1 or 3, or None for 1.
        train, val, test: number of images per split.
        split_seed: seed of all images.
        limit: at most this many images per split.
        imbalance, label_noise: see `alter_training`.

    Raises:
        ValueError: a number is out of range.
    """
    side, channels = 16 if size is None else size, 1 if channels is None else channels
    if side < 1 or channels not in (1, 3):
        raise ValueError(f"textures need size >= 1 and 1 or 3 channels, got size={size}, channels={channels}")
    counts = {"train": train, "val": val, "test": test}
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} must be at least 1, got {count}")
    parts = []
    for number, count in enumerate(counts.values()):
        generator = torch.Generator().manual_seed(3 * split_seed + number)
        labels = torch.arange(count if limit is None else min(count, limit)) % len(KINDS)
        parts.append(Images(_paint(labels, side, channels, generator), labels))
    parts[0] = alter_training(parts[0], len(KINDS), split_seed, imbalance=imbalance, label_noise=label_noise)
    return Domain("textures", len(KINDS), *parts)


def _paint(labels: Tensor, side: int, channels: int, generator: torch.Generator) -> Tensor:
    """Draw images (N, channels, side, side), uint8, of the kinds `labels` (N,)."""

    def draw(*shape: int) -> Tensor:
        return torch.rand(len(labels), *shape, generator=generator)

    angle, periods = 2 * math.pi * draw(1, 1), 2 + 3 * draw(1, 1)
    steps = torch.arange(side) / side
    down, across = steps[None, :, None] - draw(1, 1), steps[None, None, :] - draw(1, 1)
    u, v = down * angle.cos() + across * angle.sin(), across * angle.cos() - down * angle.sin()
    first, second = (torch.sin(2 * math.pi * periods * axis) for axis in (u, v))
    rings = torch.sin(2 * math.pi * periods * (u.square() + v.square()).sqrt())
    patterns = torch.stack([first, torch.sign(first * second), rings, 2 * draw(side, side) - 1])
    shade = (1 + patterns[labels, torch.arange(len(labels))])[:, None] / 2
    dark, bright = 0.4 * draw(channels, 1, 1), 0.6 + 0.4 * draw(channels, 1, 1)
    return ((dark + shade * (bright - dark)) * 255).round().clamp(0, 255).to(torch.uint8)
