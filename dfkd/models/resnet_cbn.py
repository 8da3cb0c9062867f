"""A class-conditional residual generator."""

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d

from dfkd.models.up_conv import UpConv2d

EMBEDDING = 128  # length of the class embedding that all layers share (BigGAN, arXiv 1809.11096)


class ConditionalBatchNorm(nn.Module):
    """BatchNorm whose scale and shift are linear in the class embedding (arXiv 1707.00683).

    (h - mean) / std * (1 + A e) + B e
    """

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.scale = nn.Linear(EMBEDDING, channels, bias=False)
        self.shift = nn.Linear(EMBEDDING, channels, bias=False)

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        return self.norm(h) * (1 + self.scale(e)[:, :, None, None]) + self.shift(e)[:, :, None, None]


class UpBlock(nn.Module):
    """CBN - ReLU - up - conv - CBN - ReLU - conv, plus the input through up - 1x1 convolution."""

    def __init__(self, width: int):
        super().__init__()
        self.norm1, self.norm2 = ConditionalBatchNorm(width), ConditionalBatchNorm(width)
        self.conv1, self.conv2 = UpConv2d(width, width), nn.Conv2d(width, width, 3, padding=1)
        self.shortcut = nn.Conv2d(width, width, 1)

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        out = self.conv1(torch.relu(self.norm1(h, e)))
        # The 1x1 convolution precedes the upsampling: same values, with a quarter of the operations.
        return self.conv2(torch.relu(self.norm2(out, e))) + interpolate(self.shortcut(h), scale_factor=2)


class SelfAttention(nn.Module):
    """h + gamma * attention(h) over all positions, with gamma initialised to 0 (SAGAN, arXiv 1805.08318). Keys and
    values are max-pooled 2x2, as in BigGAN."""

    def __init__(self, width: int):
        super().__init__()
        self.query, self.key = (nn.Conv2d(width, width // 8, 1, bias=False) for _ in range(2))
        self.value = nn.Conv2d(width, width // 2, 1, bias=False)
        self.out = nn.Conv2d(width // 2, width, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, h: Tensor) -> Tensor:
        query = self.query(h).flatten(2)
        key, value = (max_pool2d(f(h), 2).flatten(2) for f in (self.key, self.value))
        attention = (query.transpose(1, 2) @ key).softmax(2)  # (B, positions, pooled positions)
        attended = (value @ attention.transpose(1, 2)).unflatten(2, h.shape[2:])
        return h + self.gamma * self.out(attended)


class ResNetCBN(nn.Module):
    """A BigGAN generator for small images: residual blocks with class-conditional BatchNorm (arXiv 1809.11096).

    Layers: linear to `width` channels of 4 to 7 pixels a side - one UpBlock per doubling, all with `width` channels, as
    in BigGAN for CIFAR - BN - ReLU - conv - sigmoid. Without spectral norm, because there is no discriminator, and
    without BigGAN's connections from the latent vector to every block.

    Args:
        shape: (C, H, W) of the images; sides of at least 8 that are 4 to 7 times a power of two: 16, 20, 28, 32, ...
        classes: number of classes.
        latent: length of the latent vector z ~ N(0, 1), at least 1.
        width: channels of all blocks, at least 8.
        attention: self-attention before the last block, at half the size.

    Raises:
        ValueError: a side cannot be reached by doubling, or latent or width is too small.
    """

    conditional = True

    def __init__(
        self, shape: tuple[int, int, int], classes: int, latent: int = 128, width: int = 256, attention: bool = False
    ):
        super().__init__()
        channels, height, columns = shape
        if latent < 1 or width < 8:
            raise ValueError(f"the resnet_cbn generator needs latent >= 1 and width >= 8, got {latent} and {width}")
        doublings = 0
        while height % 2 == columns % 2 == 0 and min(height, columns) >= 8:
            height, columns, doublings = height // 2, columns // 2, doublings + 1
        if not (doublings and 4 <= min(height, columns) < 8):
            raise ValueError(
                f"the resnet_cbn generator makes images with sides of 4 to 7 times a power of two (16, 20, 28, 32, "
                f"48, 64, ...), not {shape[1]}x{shape[2]}; set data.size (points and embeddings need "
                f"generator@synthesizer.generator=mlp)"
            )
        self.latent, self.classes, self.start = latent, classes, (width, height, columns)
        self.embed = nn.Embedding(classes, EMBEDDING)
        self.project = nn.Linear(latent, width * height * columns)
        self.blocks = nn.ModuleList(UpBlock(width) for _ in range(doublings))
        self.attention = SelfAttention(width) if attention else nn.Identity()
        self.paint = nn.Sequential(
            nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, channels, 3, padding=1), nn.Sigmoid()
        )
        for module in self.modules():  # BigGAN's initialisation
            if isinstance(module, nn.Conv2d | nn.Linear | nn.Embedding):
                nn.init.orthogonal_(module.weight)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """Generate images (B, C, H, W) in [0, 1] from latent vectors (B, latent) and classes (B,)."""
        e, h = self.embed(y), self.project(z).view(-1, *self.start)
        *early, last = self.blocks
        for block in early:
            h = block(h, e)
        return self.paint(last(self.attention(h), e))
