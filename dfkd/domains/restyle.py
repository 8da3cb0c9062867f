"""Procedural variants of a domain, textured and tinted: OOD data without a download."""

import math

import torch
from torch import Tensor

from dfkd.domains.base import Domain, Images, to_float


def textured(of: Domain, strength: float = 1.0, style_seed: int = 0) -> Domain:
    """Replace every image by |strength * texture - image|, with a random texture for each, similar to MNIST-M.

    A texture is a sum of four random plane waves per channel, rescaled to [0, 1].

    Args:
        of: the domain to restyle; labels and splits do not change.
        strength: in [0, 1]; 0 gives the original image.
        style_seed: seed of the textures.

    Raises:
        ValueError: strength is outside [0, 1], or the domain's examples are not images.
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"strength must lie in [0, 1], got {strength}")

    def style(x: Tensor, generator: torch.Generator) -> Tensor:
        return (strength * _waves(x.shape, generator) - x).abs()

    return _restyled(of, "textured", style, style_seed)


def tinted(of: Domain, style_seed: int = 0) -> Domain:
    """Replace every image x by background + x * (foreground - background), with two random colours for each.

    The two colours of an image differ by at least 1/3 in some channel, so that the image stays recognisable.

    Args:
        of: the domain to restyle; labels and splits do not change.
        style_seed: seed of the colours.

    Raises:
        ValueError: the domain's examples are not images.
    """

    def style(x: Tensor, generator: torch.Generator) -> Tensor:
        shape = (len(x), x.shape[1], 1, 1)
        back, fore = torch.rand(shape, generator=generator), torch.rand(shape, generator=generator)
        close = ((fore - back).abs().amax(1, keepdim=True) < 1 / 3).float()
        fore = fore * (1 - close) + ((back + 0.5) % 1.0) * close
        return back + x * (fore - back)

    return _restyled(of, "tinted", style, style_seed)


def _restyled(of: Domain, name: str, style, seed: int) -> Domain:
    if not of.modality.has_pixels:
        raise ValueError(f"only images can be {name}, and '{of.name}' is a domain of {of.modality.name}")
    parts = []
    for number, images in enumerate((of.train, of.val, of.test)):
        generator = torch.Generator().manual_seed(3 * seed + number)
        x = torch.cat([style(to_float(part), generator) for part in images.x.split(2000)])
        parts.append(Images((x.clamp(0, 1) * 255).round().to(torch.uint8), images.y))
    return Domain(f"{name}_{of.name}", of.classes, *parts, notes=of.notes)


def _waves(shape: tuple[int, ...], generator: torch.Generator, count: int = 4) -> Tensor:
    """Draw textures of `shape` (N, C, H, W) in [0, 1]: `count` plane waves per channel, with 1 to 4 periods each."""
    n, c, h, w = shape
    rows, columns = torch.linspace(0, 1, h).view(1, 1, h, 1), torch.linspace(0, 1, w).view(1, 1, 1, w)
    total = torch.zeros(shape)
    for _ in range(count):
        angle, phase = (2 * math.pi * torch.rand(n, c, 1, 1, generator=generator) for _ in range(2))
        periods = 1 + 3 * torch.rand(n, c, 1, 1, generator=generator)
        total += torch.sin(2 * math.pi * periods * (rows * angle.cos() + columns * angle.sin()) + phase)
    low, high = total.amin((2, 3), keepdim=True), total.amax((2, 3), keepdim=True)
    return (total - low) / (high - low).clamp_min(1e-6)
