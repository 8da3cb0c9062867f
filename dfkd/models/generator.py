"""Generators, which map latent vectors to images in [0, 1], or to points and embeddings."""

from itertools import pairwise
from math import prod

from torch import Tensor, nn

from dfkd.models.up_conv import UpConv2d


class DCGAN(nn.Module):
    """The generators of CMI's benchmark (arXiv 2105.08584). For 32x32 images and latent 256 they are:

    - Generator, 2.33 M parameters, used by CMI (in Fast's code by every method): start 128, width 128
    - LargeGenerator, 4.58 M parameters, used by DAFL, ZSKT and DFQ: start 256, width 128

    Layers: linear to `start` channels at a quarter of the size - BN - up - conv `width` - BN - LeakyReLU(.2) - up -
    conv `width / 2` - BN - LeakyReLU(.2) - conv - sigmoid.

    Args:
        shape: (C, H, W) of the images; H and W divisible by 4.
        latent: length of the latent vector z ~ N(0, 1).
        width: channels of the middle layers are `width` and `width / 2`.
        start: channels of the first feature map; None means `width`.

    Raises:
        ValueError: a side of the image is not divisible by 4, or latent, width or start is not positive.
    """

    conditional = False

    def __init__(self, shape: tuple[int, int, int], latent: int = 256, width: int = 128, start: int | None = None):
        super().__init__()
        channels, height, columns = shape
        if height % 4 or columns % 4:
            raise ValueError(
                f"the dcgan generator makes images with sides divisible by 4, not {height}x{columns}; set data.size "
                f"(points and embeddings need generator@synthesizer.generator=mlp)"
            )
        if latent < 1 or width < 2:
            raise ValueError(f"the dcgan generator needs latent >= 1 and width >= 2, got {latent} and {width}")
        start = width if start is None else start
        if start < 1:
            raise ValueError(f"the dcgan generator needs start >= 1, got {start}")
        self.latent = latent
        self.start = (start, height // 4, columns // 4)
        self.project = nn.Linear(latent, start * (height // 4) * (columns // 4))
        self.paint = nn.Sequential(
            nn.BatchNorm2d(start),
            UpConv2d(start, width, bias=False),
            nn.BatchNorm2d(width),
            nn.LeakyReLU(0.2),
            UpConv2d(width, width // 2, bias=False),
            nn.BatchNorm2d(width // 2),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width // 2, channels, 3, padding=1),
            nn.Sigmoid(),
        )

    def forward(self, z: Tensor) -> Tensor:
        """Generate images (B, C, H, W) in [0, 1] from latent vectors (B, latent)."""
        return self.paint(self.project(z).view(-1, *self.start))


class MLPGenerator(nn.Module):
    """The generator of CAKE's 2-D sets (arXiv 2306.02090, public code): `layers` hidden ReLU layers, then a linear one.

    With a box, a sigmoid follows, so that images lie in [0, 1].

    Args:
        shape: (C, H, W) of the images, (1, 2, 1) for points, (D, 1, 1) for embeddings.
        latent: length of the latent vector.
        hidden: width of the hidden layers.
        layers: number of hidden layers.
        box: (0, 1) for images, None for points and embeddings.

    Raises:
        ValueError: latent, hidden or layers is not positive.
    """

    conditional = False

    def __init__(
        self,
        shape: tuple[int, int, int],
        latent: int = 12,
        hidden: int = 100,
        layers: int = 2,
        box: tuple[float, float] | None = None,
    ):
        super().__init__()
        if latent < 1 or hidden < 1 or layers < 1:
            raise ValueError(
                f"the mlp generator needs latent, hidden and layers of at least 1, got {latent}, {hidden} and {layers}"
            )
        self.latent = latent
        widths = [latent] + [hidden] * layers
        steps = [part for a, b in pairwise(widths) for part in (nn.Linear(a, b), nn.ReLU())]
        end = nn.Identity() if box is None else nn.Sigmoid()
        self.paint = nn.Sequential(*steps, nn.Linear(hidden, prod(shape)), end, nn.Unflatten(1, shape))

    def forward(self, z: Tensor) -> Tensor:
        """Generate images (B, C, H, W) in [0, 1], points or embeddings from latent vectors (B, latent)."""
        return self.paint(z)
