"""Noise of many spectra: from white noise over the spectrum of photographs to soft clouds."""

import torch
from torch import Tensor

from dfkd.scouts.base import Scouts


class SpectralNoise(Scouts):
    """Gaussian noise whose amplitude falls with the spatial frequency f as 1 / f^a:

        x = clip(brightness + contrast * n),    n of mean 0 and variance 1 in every image and channel

    Brightness and contrast are random. a = 0 is white noise, a = 1 has the spectrum of photographs (Field, J. Opt.
    Soc. Am. A 4, 1987), a = 2 looks like clouds. Half of the images are grey.

    Args:
        shape: (C, H, W) of an image (set from the domain).
        slopes: range of a, at least 0.
        brightness: range of the mean, in [0, 1].
        contrast: range of the standard deviation before clipping, at least 0.

    Raises:
        ValueError: a range is not (low, high), or is negative.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        slopes: tuple[float, float] = (0.0, 2.5),
        brightness: tuple[float, float] = (0.0, 1.0),
        contrast: tuple[float, float] = (0.05, 0.5),
    ):
        super().__init__(shape)
        for name, bounds in {"slopes": slopes, "brightness": brightness, "contrast": contrast}.items():
            if len(bounds) != 2 or not 0 <= bounds[0] <= bounds[1]:
                raise ValueError(f"{name} must be [low, high] with 0 <= low <= high, got {list(bounds)}")
        self.slopes, self.brightness, self.contrast = tuple(slopes), tuple(brightness), tuple(contrast)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        channels, height, width = self.shape
        white = torch.randn(count, channels, height, width, generator=generator, device=generator.device)
        frequency = torch.hypot(
            torch.fft.fftfreq(height, device=white.device)[:, None], torch.fft.rfftfreq(width, device=white.device)
        )
        frequency[0, 0] = 1.0  # the mean is set below
        slope = self.uniform(count, *self.slopes, generator)
        noise = torch.fft.irfft2(torch.fft.rfft2(white) * frequency**-slope, s=(height, width))
        noise = torch.where(self.uniform(count, 0, 1, generator) < 0.5, noise[:, :1], noise)
        noise = noise - noise.mean((2, 3), keepdim=True)
        noise = noise / noise.std((2, 3), correction=0, keepdim=True).clamp_min(1e-6)
        brightness = self.uniform(count, *self.brightness, generator)
        return (brightness + self.uniform(count, *self.contrast, generator) * noise).clamp(0, 1)
