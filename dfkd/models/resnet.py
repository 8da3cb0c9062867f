"""Residual networks: ResNet-18/34 with the stem of CIFAR or of ImageNet, and CAKE's four-block ResNet-4."""

from itertools import accumulate

import torch
from torch import Tensor, nn

from dfkd.models.common import FeatureNet


class BasicBlock(nn.Module):
    """conv - BN - ReLU - conv - BN, plus the input (through a 1x1 convolution if the shape changes), then ReLU."""

    def __init__(self, channels: int, width: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Identity()
        if stride != 1 or channels != width:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(out + self.shortcut(x))


def _stages(channels: int, planes: tuple[int, ...], blocks: tuple[int, ...]) -> list[nn.Module]:
    """Build stages of BasicBlocks; each stage except the first halves height and width."""
    layers = []
    for stage, (width, count) in enumerate(zip(planes, blocks, strict=True)):
        for block in range(count):
            layers.append(BasicBlock(channels, width, 2 if stage > 0 and block == 0 else 1))
            channels = width
    return layers


def _resnet(stem: list[nn.Module], planes: tuple[int, ...], blocks: tuple[int, ...], classes: int) -> FeatureNet:
    pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    body = nn.Sequential(*stem, *_stages(planes[0], planes, blocks), *pool)
    ends = accumulate(blocks, initial=len(stem) - 1)  # the stem, then the last block of every stage
    net = FeatureNet(body, nn.Linear(planes[-1], classes), ends)
    for module in net.modules():  # the initialisation of torchvision's ResNets (He et al. 2015)
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return net


def resnet(
    shape: tuple[int, int, int], classes: int, blocks: tuple[int, ...] = (2, 2, 2, 2), stem: str | None = None
) -> FeatureNet:
    """ResNet (arXiv 1512.03385), by default with the CIFAR stem (one 3x3 convolution, no max-pooling), for images of at
    least 8 pixels a side.

    Args:
        blocks: BasicBlocks per stage: (2, 2, 2, 2) is ResNet-18 (11.17 M parameters for CIFAR-10), (3, 4, 6, 3) is
            ResNet-34.
        stem: layers before the blocks: 'conv3' (same as None), 'conv3_pool' (with a max-pooling after the convolution),
            or 'conv7_pool' (a 7x7 convolution of stride 2 and a max-pooling, as for ImageNet).

    Raises:
        ValueError: an unknown stem.
    """
    stems = ("conv3", "conv3_pool", "conv7_pool")
    if stem not in (None, *stems):
        raise ValueError(f"stem must be one of {', '.join(stems)}, got '{stem}'")
    side, stride = (7, 2) if stem == "conv7_pool" else (3, 1)
    first = [nn.Conv2d(shape[0], 64, side, stride, side // 2, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    if stem in ("conv3_pool", "conv7_pool"):
        first.append(nn.MaxPool2d(3, stride=2, padding=1))
    return _resnet(first, (64, 128, 256, 512), blocks, classes)


def resnet4(shape: tuple[int, int, int], classes: int) -> FeatureNet:
    """CAKE's ResNet-4: 7x7 stem of stride 2 and max-pooling, one block per stage, 32-64-128-64 planes (427,882
    parameters on MNIST)."""
    stem = [
        nn.Conv2d(shape[0], 32, 7, stride=2, padding=3, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2, padding=1),
    ]
    return _resnet(stem, (32, 64, 128, 64), (1, 1, 1, 1), classes)
