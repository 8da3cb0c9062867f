"""Generators: latent vectors to images in [0, 1]."""

from torch import Tensor, nn


class DCGAN(nn.Module):
    """The generator of CMI's benchmark, used there for DAFL, ZSKT, DFQ and CMI (2.33 M parameters at 32x32, z 256).

    Linear to 128 channels at a quarter of the size - BN - up - conv 128 - BN - LeakyReLU(.2) - up - conv 64 - BN -
    LeakyReLU(.2) - conv - sigmoid.

    Args:
        shape: (C, H, W) of the images; H and W divisible by 4.
        latent: length of the latent vector z ~ N(0, 1).
        width: channels of the middle layers are `width` and `width / 2`.

    Raises:
        ValueError: a side of the image is not divisible by 4, or latent or width is not positive.
    """

    def __init__(self, shape: tuple[int, int, int], latent: int = 256, width: int = 128):
        super().__init__()
        channels, height, columns = shape
        if height % 4 or columns % 4:
            raise ValueError(f"the dcgan generator makes images with sides divisible by 4, not {height}x{columns}")
        if latent < 1 or width < 2:
            raise ValueError(f"the dcgan generator needs latent >= 1 and width >= 2, got {latent} and {width}")
        self.latent = latent
        self.start = (width, height // 4, columns // 4)
        self.project = nn.Linear(latent, width * (height // 4) * (columns // 4))
        self.paint = nn.Sequential(
            nn.BatchNorm2d(width),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.LeakyReLU(0.2),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(width, width // 2, 3, padding=1, bias=False),
            nn.BatchNorm2d(width // 2),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width // 2, channels, 3, padding=1),
            nn.Sigmoid(),
        )

    def forward(self, z: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] of latent vectors (B, latent)."""
        return self.paint(self.project(z).view(-1, *self.start))
