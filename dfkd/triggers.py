"""Backdoor triggers: callables that stamp images (N, C, H, W) in [0, 1]."""

from collections.abc import Callable

import torch
from torch import Tensor

Trigger = Callable[[Tensor], Tensor]


class Patch:
    """A square in the bottom-right corner (BadNets, arXiv 1708.06733).

    Args:
        size: side of the square in pixels.
        margin: pixels between the square and the two edges.
        pattern: 'solid', or 'checker' (neighbouring pixels alternate, the corner pixel bright).
        value: brightness of the bright pixels, in [0, 1].

    Raises:
        ValueError: a value out of range.
    """

    def __init__(self, size: int = 3, margin: int = 1, pattern: str = "solid", value: float = 1.0):
        if size < 1 or margin < 0:
            raise ValueError(f"a patch needs size >= 1 and margin >= 0, got size={size}, margin={margin}")
        if pattern not in ("solid", "checker"):
            raise ValueError(f"pattern must be 'solid' or 'checker', got '{pattern}'")
        if not 0 <= value <= 1:
            raise ValueError(f"value must lie in [0, 1], got {value}")
        self.margin = margin
        self.patch = torch.full((size, size), value)
        if pattern == "checker":
            steps = torch.arange(size)
            self.patch = self.patch * ((steps[:, None] + steps[None, :]) % 2 == 0).float().flip(0, 1)

    def __call__(self, images: Tensor) -> Tensor:
        size, height, width = len(self.patch), *images.shape[2:]
        if size + self.margin > min(height, width):
            raise ValueError(f"a {size}-pixel patch with margin {self.margin} does not fit a {height}x{width} image")
        bottom, right = height - self.margin, width - self.margin
        stamped = images.clone()
        stamped[..., bottom - size : bottom, right - size : right] = self.patch
        return stamped


class Blend:
    """A fixed pattern blended over the whole image, (1 - ratio) x + ratio * pattern (arXiv 1712.05526).

    The pattern is seeded uniform noise, the same for every image.

    Args:
        ratio: share of the pattern, in (0, 1).
        pattern_seed: of the pattern.
    """

    def __init__(self, ratio: float = 0.2, pattern_seed: int = 0):
        if not 0 < ratio < 1:
            raise ValueError(f"ratio must lie in (0, 1), got {ratio}")
        self.ratio, self.pattern_seed = ratio, pattern_seed

    def __call__(self, images: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(self.pattern_seed)
        pattern = torch.rand(images.shape[1:], generator=generator)
        return (1 - self.ratio) * images + self.ratio * pattern
