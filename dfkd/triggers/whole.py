"""Triggers that cover the whole image: a blended pattern, a sinusoid."""

import math

import torch
from torch import Tensor


class Blend:
    """A fixed pattern blended over the whole image, (1 - ratio) x + ratio * pattern (Chen et al., arXiv 1712.05526).

    The pattern is uniform noise, the same for every image.

    Args:
        ratio: opacity of the pattern, in (0, 1).
        pattern_seed: seed of the pattern.

    Raises:
        ValueError: ratio is out of range.
    """

    def __init__(self, ratio: float = 0.2, pattern_seed: int = 0):
        if not 0 < ratio < 1:
            raise ValueError(f"ratio must lie in (0, 1), got {ratio}")
        self.ratio, self.pattern_seed = ratio, pattern_seed

    def __call__(self, images: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(self.pattern_seed)
        pattern = torch.rand(images.shape[1:], generator=generator).to(images)
        return (1 - self.ratio) * images + self.ratio * pattern


class Sinusoid:
    """Vertical stripes, clip(x + amplitude * sin(2 pi f j / W)), j the column (SIG: Barni et al., arXiv 1902.11237).

    Args:
        amplitude: amplitude on the images' scale, in (0, 1].
        frequency: f, periods across the image. On images narrower than 4 f pixels it is reduced to W / 4, so that a
            period has at least four pixels; a shorter period would cause aliasing or vanish.

    Raises:
        ValueError: a value is out of range.
    """

    def __init__(self, amplitude: float = 20 / 255, frequency: float = 6.0):
        if not 0 < amplitude <= 1:
            raise ValueError(f"amplitude must lie in (0, 1], got {amplitude}")
        if frequency <= 0:
            raise ValueError(f"frequency must be positive, got {frequency}")
        self.amplitude, self.frequency = amplitude, frequency

    def __call__(self, images: Tensor) -> Tensor:
        width = images.shape[3]
        periods = min(self.frequency, width / 4)
        columns = torch.arange(width, device=images.device)
        stripes = self.amplitude * torch.sin(2 * math.pi * periods * columns / width)
        return (images + stripes.to(images.dtype)).clamp(0, 1)
