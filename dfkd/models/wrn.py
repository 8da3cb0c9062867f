"""Wide residual networks (arXiv 1605.07146), such as WRN-16-1, 16-2, 40-1 and 40-2 of the DFKD tables."""

import torch
from torch import Tensor, nn

from dfkd.models.common import FeatureNet


class PreActBlock(nn.Module):
    """Pre-activation block: BN - ReLU - conv - BN - ReLU - conv, with a 1x1 shortcut if the shape changes."""

    def __init__(self, channels: int, width: int, stride: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        changed = stride != 1 or channels != width
        self.shortcut = nn.Conv2d(channels, width, 1, stride, bias=False) if changed else None

    def forward(self, x: Tensor) -> Tensor:
        pre = torch.relu(self.bn1(x))
        out = self.conv2(torch.relu(self.bn2(self.conv1(pre))))
        return out + (x if self.shortcut is None else self.shortcut(pre))


def wrn(shape: tuple[int, int, int], classes: int, depth: int = 16, widen: int = 1) -> FeatureNet:
    """WRN-depth-widen: three stages of (depth - 4) / 6 blocks with 16, 32, 64 times `widen` channels.

    Raises:
        ValueError: depth is not 6n + 4, or widen < 1.
    """
    if depth < 10 or (depth - 4) % 6 or widen < 1:
        raise ValueError(f"wrn needs depth = 6n + 4 (10, 16, 22, 28, 40, ...) and widen >= 1, got {depth}, {widen}")
    blocks = (depth - 4) // 6
    layers: list[nn.Module] = [nn.Conv2d(shape[0], 16, 3, 1, 1, bias=False)]
    channels = 16
    for stage, width in enumerate((16 * widen, 32 * widen, 64 * widen)):
        for block in range(blocks):
            layers.append(PreActBlock(channels, width, 2 if stage > 0 and block == 0 else 1))
            channels = width
    layers += [nn.BatchNorm2d(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    ends = (0, blocks, 2 * blocks, 3 * blocks)  # the stem, then the last block of every stage
    net = FeatureNet(nn.Sequential(*layers), nn.Linear(channels, classes), ends)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return net
