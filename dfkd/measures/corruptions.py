"""Common corruptions of images at five strengths, after ImageNet-C.

Hendrycks & Dietterich, ICLR 2019, arXiv 1903.12261.

These are the kinds that make sense for images of 8 to 32 pixels. Noise, brightness, contrast and pixelation have
ImageNet-C's strengths. The width of the blur is a share of the image's side, because ImageNet-C's widths, made for 224
pixels, would be far below one pixel here. Left out are kinds that need photographs or a fine grid of pixels: glass and
zoom blur, snow, frost, fog, elastic deformation and JPEG.

Every function maps images (B, C, H, W) in [0, 1] to images in [0, 1] of the same shape. The numbers that are drawn come
from the generator alone, so that every model can be shown the same images.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

STRENGTHS = (1, 2, 3, 4, 5)


def gaussian_noise(x: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """x + N(0, sigma^2) per value."""
    return x + sigma * torch.randn(x.shape, generator=generator)


def shot_noise(x: Tensor, photons: float, generator: torch.Generator) -> Tensor:
    """Poisson(photons x) / photons per value: few photons make strong noise in bright parts."""
    return torch.poisson(photons * x, generator=generator) / photons


def impulse_noise(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Salt and pepper: this share of the values becomes 0 or 1, each with the same probability."""
    draw = torch.rand(x.shape, generator=generator)
    return torch.where(draw < share, (draw < share / 2).float(), x)


def gaussian_blur(x: Tensor, width: float, generator: torch.Generator) -> Tensor:
    """Convolution with a Gaussian whose standard deviation is `width` times the larger side; borders are repeated."""
    sigma = width * max(x.shape[2:])
    reach = max(1, round(3 * sigma))
    kernel = torch.exp(-torch.arange(-reach, reach + 1).float().square() / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    planes = F.pad(x.flatten(0, 1)[:, None], (reach, reach, reach, reach), mode="replicate")
    blurred = F.conv2d(F.conv2d(planes, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))
    return blurred[:, 0].unflatten(0, x.shape[:2])


def brightness(x: Tensor, shift: float, generator: torch.Generator) -> Tensor:
    """Add `shift` to the value of HSV, which is the largest channel; hue and saturation stay."""
    value = x.amax(1, keepdim=True)
    return torch.where(value > 0, x * (value + shift).clamp(max=1) / value.clamp_min(1e-6), shift)


def contrast(x: Tensor, factor: float, generator: torch.Generator) -> Tensor:
    """Shrink the distance of every value to the mean of its channel by a factor."""
    mean = x.mean((2, 3), keepdim=True)
    return mean + factor * (x - mean)


def pixelate(x: Tensor, factor: float, generator: torch.Generator) -> Tensor:
    """Reduce to round(factor H) x round(factor W) pixels, each the mean of an area, and enlarge them as squares."""
    size = [max(1, round(factor * side)) for side in x.shape[2:]]
    return F.interpolate(F.interpolate(x, size, mode="area"), x.shape[2:], mode="nearest")


# {kind: (function, its parameter at the strengths 1 to 5)}
CORRUPTIONS: dict[str, tuple[Callable[[Tensor, float, torch.Generator], Tensor], tuple[float, ...]]] = {
    "gaussian_noise": (gaussian_noise, (0.08, 0.12, 0.18, 0.26, 0.38)),
    "shot_noise": (shot_noise, (60, 25, 12, 5, 3)),
    "impulse_noise": (impulse_noise, (0.03, 0.06, 0.09, 0.17, 0.27)),
    "gaussian_blur": (gaussian_blur, (0.02, 0.03, 0.04, 0.055, 0.07)),
    "brightness": (brightness, (0.1, 0.2, 0.3, 0.4, 0.5)),
    "contrast": (contrast, (0.4, 0.3, 0.2, 0.1, 0.05)),
    "pixelate": (pixelate, (0.6, 0.5, 0.4, 0.3, 0.25)),
}


def corrupt(x: Tensor, kind: str, strength: int, generator: torch.Generator) -> Tensor:
    """Corrupt images.

    Args:
        x: (B, C, H, W), float in [0, 1], on the CPU.
        kind: a key of CORRUPTIONS.
        strength: 1 (weak) to 5 (strong).
        generator: of the CPU; draws the noise.
    """
    function, parameters = CORRUPTIONS[kind]
    return function(x, parameters[strength - 1], generator).clamp(0, 1)
