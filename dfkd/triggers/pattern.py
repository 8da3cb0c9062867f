"""Seeded substitutes for the trigger files of the literature, with the same support, size and insertion.

Patterns are drawn on a 32-pixel canvas, with a separate draw for each number of channels, and resized to the image by
nearest-neighbour interpolation. Small and large images therefore have the same trigger.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd.triggers.base import CANVAS, scaled, span


def _noise(channels: int, height: int, width: int, seed: int) -> Tensor:
    """Draw uniform noise (channels, height, width) in [0, 1), with a seed."""
    return torch.rand(channels, height, width, generator=torch.Generator().manual_seed(seed))


def _fit(pattern: Tensor, height: int, width: int) -> Tensor:
    """Resize a pattern (C, h, w) to `height` x `width` pixels by nearest-neighbour interpolation."""
    return F.interpolate(pattern[None], (height, width), mode="nearest")[0]


class Trojan:
    """Noise added inside a square, clip(x + strength * pattern) (TrojanNN: Liu et al., NDSS 2018).

    Args:
        first: row and column of the square's top-left corner on the canvas.
        size: side of the square on the canvas.
        strength: factor of the pattern, in (0, 1].
        pattern_seed: seed of the pattern, which is uniform in [0, 1).

    Raises:
        ValueError: a value is out of range.
    """

    def __init__(self, first: int = 25, size: int = 3, strength: float = 1.0, pattern_seed: int = 0):
        if first < 0 or size < 1 or first + size > CANVAS:
            raise ValueError(f"the square must lie on the {CANVAS}-pixel canvas, got first={first}, size={size}")
        if not 0 < strength <= 1:
            raise ValueError(f"strength must lie in (0, 1], got {strength}")
        self.first, self.size, self.strength, self.pattern_seed = first, size, strength, pattern_seed

    def __call__(self, images: Tensor) -> Tensor:
        rows, columns = (span(self.first, self.size, side) for side in images.shape[2:])
        pattern = _noise(images.shape[1], self.size, self.size, self.pattern_seed)
        pattern = _fit(pattern, rows.stop - rows.start, columns.stop - columns.start)
        stamped = images.clone()
        stamped[..., rows, columns] = (stamped[..., rows, columns] + self.strength * pattern.to(images)).clamp(0, 1)
        return stamped


class Pixels:
    """Replaces a few pixels of the bottom row by fixed colours (the L0 trigger of Li et al., arXiv 1909.02742).

    Args:
        count: number of pixels on the canvas; scaled with the width of the image, to at least one.
        pattern_seed: seed of the columns and colours.

    Raises:
        ValueError: count is not in 1..32.
    """

    def __init__(self, count: int = 8, pattern_seed: int = 0):
        if not 1 <= count <= CANVAS:
            raise ValueError(f"count must lie in 1..{CANVAS}, got {count}")
        self.count, self.pattern_seed = count, pattern_seed

    def __call__(self, images: Tensor) -> Tensor:
        channels, width = images.shape[1], images.shape[3]
        count = max(1, scaled(self.count, width))
        generator = torch.Generator().manual_seed(self.pattern_seed)
        columns = torch.randperm(width, generator=generator)[:count]
        colours = torch.rand(channels, count, generator=generator)
        stamped = images.clone()
        stamped[:, :, -1, columns.to(images.device)] = colours.to(images)
        return stamped


class Sparse:
    """Small noise of both signs on most pixels, clip(x + pattern) (the L2 trigger of Li et al., arXiv 1909.02742).

    Args:
        share: share of the pixels that are changed, in (0, 1].
        rms: root mean square of the pattern over all pixels and channels, in (0, 1]. The L2 norm is rms * sqrt(C H W),
            so that the change per pixel does not depend on the image size.
        pattern_seed: seed of the pattern, which is uniform in [-1, 1] before it is scaled to rms.

    Raises:
        ValueError: a value is out of range.
    """

    def __init__(self, share: float = 905 / 1024, rms: float = 16 / 255, pattern_seed: int = 0):
        for name, value in (("share", share), ("rms", rms)):
            if not 0 < value <= 1:
                raise ValueError(f"{name} must lie in (0, 1], got {value}")
        self.share, self.rms, self.pattern_seed = share, rms, pattern_seed

    def __call__(self, images: Tensor) -> Tensor:
        channels, height, width = images.shape[1:]
        noise = _noise(channels + 1, CANVAS, CANVAS, self.pattern_seed)
        chosen = torch.zeros(CANVAS * CANVAS)
        chosen[noise[0].flatten().argsort()[: max(1, round(self.share * CANVAS * CANVAS))]] = 1
        pattern = _fit((2 * noise[1:] - 1) * chosen.view(1, CANVAS, CANVAS), height, width)
        pattern = pattern * (self.rms / pattern.square().mean().sqrt().clamp_min(1e-8))
        return (images + pattern.to(images)).clamp(0, 1)


class Smooth:
    """Adds a smooth pattern, then rescales every image to [0, 1] by its minimum and maximum (Zeng et al., 2104.03413).

        z = x + p,   x' = (z - min z) / (max z - min z),   p = amplitude * a sum of low-frequency cosines in [0, 1]

    Args:
        amplitude: amplitude of the pattern, in (0, 1].
        frequencies: number of cosines per direction, with 0 .. frequencies - 1 half periods across the image; in 2..8.
        pattern_seed: seed of the weights of the cosines.

    Raises:
        ValueError: a value is out of range.
    """

    def __init__(self, amplitude: float = 0.2, frequencies: int = 4, pattern_seed: int = 0):
        if not 0 < amplitude <= 1:
            raise ValueError(f"amplitude must lie in (0, 1], got {amplitude}")
        if not 2 <= frequencies <= 8:
            raise ValueError(f"frequencies must lie in 2..8, got {frequencies}")
        self.amplitude, self.frequencies, self.pattern_seed = amplitude, frequencies, pattern_seed

    def pattern(self, channels: int, height: int, width: int) -> Tensor:
        """Compute the pattern p (channels, height, width), in [0, amplitude]."""
        count = self.frequencies
        weights = 2 * _noise(channels, count, count, self.pattern_seed) - 1
        rows, columns = (self._waves(side) for side in (height, width))
        waves = torch.einsum("cab,ah,bw->chw", weights, rows, columns)
        low, high = waves.min(), waves.max()
        return self.amplitude * (waves - low) / (high - low).clamp_min(1e-8)

    def _waves(self, side: int) -> Tensor:
        """cos(pi k (i + 1/2) / side) for k = 0 .. frequencies - 1 and pixels i, (frequencies, side)."""
        pixels = (torch.arange(side) + 0.5) / side
        return torch.cos(math.pi * torch.arange(self.frequencies)[:, None] * pixels)

    def __call__(self, images: Tensor) -> Tensor:
        z = images + self.pattern(*images.shape[1:]).to(images)
        low, high = z.amin((1, 2, 3), keepdim=True), z.amax((1, 2, 3), keepdim=True)
        return (z - low) / (high - low).clamp_min(1e-8)
