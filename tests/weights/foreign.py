"""Networks of other people, as far as layer names and forward passes go."""

import contextlib
import copy
from collections.abc import Callable
from importlib.metadata import version

import torch
from torch import nn
from torch.nn import functional as F

from dfkd.cli.fits import on_meta_device


def on_meta() -> contextlib.AbstractContextManager:
    """Networks made inside the block have no values; but the oldest timm reads some while it makes a transformer."""
    return contextlib.nullcontext() if version("timm") == "1.0.11" else on_meta_device()


def conv(channels: int, width: int, side: int, stride: int = 1, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(channels, width, side, stride, side // 2, bias=bias)


def norm_conv(channels: int, width: int, stride: int) -> nn.Sequential:
    return nn.Sequential(conv(channels, width, 1, stride), nn.BatchNorm2d(width))


class Block(nn.Module):
    """conv1, bn1, conv2, bn2, and a shortcut under the name `skip`."""

    def __init__(self, channels, width, stride, skip="shortcut"):
        super().__init__()
        self.conv1, self.bn1 = conv(channels, width, 3, stride), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv(width, width, 3), nn.BatchNorm2d(width)
        changed = stride > 1 or channels != width
        setattr(self, skip, norm_conv(channels, width, stride) if changed else nn.Sequential())
        self.skip = skip

    def forward(self, x):
        inner = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(inner + getattr(self, self.skip)(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride), 1x1 of four times the width."""

    def __init__(self, channels, width, stride):
        super().__init__()
        self.conv1, self.bn1 = conv(channels, width, 1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv(width, width, 3, stride), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = conv(width, 4 * width, 1), nn.BatchNorm2d(4 * width)
        changed = stride > 1 or channels != 4 * width
        self.shortcut = norm_conv(channels, 4 * width, stride) if changed else nn.Sequential()

    def forward(self, x):
        out = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        return F.relu(self.bn3(self.conv3(out)) + self.shortcut(x))


class CifarResNet(nn.Module):
    """conv1, bn1, layer1 ... layer4, linear: CMI, Fast, NAYER, DAFL, kuangliu."""

    def __init__(self, blocks, classes=10, kind=Block, wide=1):
        super().__init__()
        self.conv1, self.bn1, channels = conv(3, 64, 3), nn.BatchNorm2d(64), 64
        for number, (count, width) in enumerate(zip(blocks, (64, 128, 256, 512), strict=True), 1):
            layers = []
            for place in range(count):
                layers.append(kind(channels, width, 2 if number > 1 and place == 0 else 1))
                channels = width * wide
            self.add_module(f"layer{number}", nn.Sequential(*layers))
        self.linear = nn.Linear(channels, classes)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.linear(x.mean((2, 3)))


class PreActBlock(nn.Module):
    """The same names in another order: BN - ReLU - conv twice (kuangliu's PreActResNet)."""

    def __init__(self, channels, width, stride):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(channels), conv(channels, width, 3, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(width), conv(width, width, 3)
        if stride > 1 or channels != width:
            self.shortcut = nn.Sequential(conv(channels, width, 1, stride))


class ResidualFunction(nn.Module):
    """weiaicunzai's block."""

    def __init__(self, channels, width, stride):
        super().__init__()
        first = [conv(channels, width, 3, stride), nn.BatchNorm2d(width), nn.ReLU()]
        self.residual_function = nn.Sequential(*first, conv(width, width, 3), nn.BatchNorm2d(width))
        changed = stride > 1 or channels != width
        self.shortcut = norm_conv(channels, width, stride) if changed else nn.Sequential()

    def forward(self, x):
        return F.relu(self.residual_function(x) + self.shortcut(x))


class WeiResNet(nn.Module):
    """conv1 (a Sequential), conv2_x ... conv5_x, fc."""

    def __init__(self, blocks, classes=100):
        super().__init__()
        self.conv1, channels = nn.Sequential(conv(3, 64, 3), nn.BatchNorm2d(64), nn.ReLU()), 64
        for number, (count, width) in enumerate(zip(blocks, (64, 128, 256, 512), strict=True), 2):
            layers = []
            for place in range(count):
                layers.append(ResidualFunction(channels, width, 2 if number > 2 and place == 0 else 1))
                channels = width
            self.add_module(f"conv{number}_x", nn.Sequential(*layers))
        self.fc = nn.Linear(512, classes)

    def forward(self, x):
        x = self.conv5_x(self.conv4_x(self.conv3_x(self.conv2_x(self.conv1(x)))))
        return self.fc(x.mean((2, 3)))


class WideBlock(nn.Module):
    """Where the width changes, the shortcut starts behind the first BN and ReLU."""

    def __init__(self, channels, width, stride):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(channels), conv(channels, width, 3, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(width), conv(width, width, 3)
        self.convShortcut = None if channels == width else conv(channels, width, 1, stride)

    def forward(self, x):
        active = F.relu(self.bn1(x))
        out = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return out + (x if self.convShortcut is None else self.convShortcut(active))


class Stage(nn.Module):
    def __init__(self, *blocks):
        super().__init__()
        self.layer = nn.Sequential(*blocks)

    def forward(self, x):
        return self.layer(x)


class WideResNet(nn.Module):
    """conv1, block1.layer.0 ..., bn1, fc: CMI, Fast, NAYER, ZSKT, xternalz."""

    def __init__(self, depth, widen, classes=10):
        super().__init__()
        self.conv1, channels, count = conv(3, 16, 3), 16, (depth - 4) // 6
        for number, width in enumerate((16 * widen, 32 * widen, 64 * widen), 1):
            blocks = []
            for place in range(count):
                blocks.append(WideBlock(channels, width, 2 if number > 1 and place == 0 else 1))
                channels = width
            self.add_module(f"block{number}", Stage(*blocks))
        self.bn1, self.fc = nn.BatchNorm2d(channels), nn.Linear(channels, classes)

    def forward(self, x):
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        return self.fc(F.relu(self.bn1(x)).mean((2, 3)))


class TradesResNet(WideResNet):
    """The same with a second block1 that is not called: TRADES."""

    def __init__(self, depth, widen, classes=10):
        super().__init__(depth, widen, classes)
        self.sub_block1 = copy.deepcopy(self.block1)


VGG = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3)}
WIDTHS = (64, 128, 256, 512, 512)


class BlockVGG(nn.Module):
    """block0 ... block4, classifier: CMI, Fast, NAYER, RepDistiller. Blocks end before their last ReLU."""

    def __init__(self, depth, batch_norm=True, classes=10):
        super().__init__()
        channels = 3
        for number, (count, width) in enumerate(zip(VGG[depth], WIDTHS, strict=True)):
            layers = []
            for _ in range(count):
                layers += [conv(channels, width, 3, bias=True), *([nn.BatchNorm2d(width)] * batch_norm), nn.ReLU()]
                channels = width
            self.add_module(f"block{number}", nn.Sequential(*layers[:-1]))
        self.classifier = nn.Linear(512, classes)

    def forward(self, x):
        pooled = 4 if x.shape[2] == 64 else 3
        for number in range(5):
            x = F.relu(getattr(self, f"block{number}")(x))
            x = F.max_pool2d(x, 2) if number < pooled else x
        return self.classifier(x.mean((2, 3)))


class FeaturesVGG(nn.Module):
    """features.#, classifier: torchvision's layers with the heads that people train on CIFAR."""

    def __init__(self, depth, batch_norm=True, classes=10, hidden=(), grid=1, named="classifier", dropout=False):
        super().__init__()
        layers, channels = [], 3
        for count, width in zip(VGG[depth], WIDTHS, strict=True):
            for _ in range(count):
                layers += [conv(channels, width, 3, bias=True), *([nn.BatchNorm2d(width)] * batch_norm), nn.ReLU()]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features, self.grid, wide, head = nn.Sequential(*layers), grid, 512 * grid**2, []
        for width in hidden:
            head += [*([nn.Dropout()] * dropout), nn.Linear(wide, width), nn.ReLU()]
            wide = width
        head.append(nn.Linear(wide, classes))
        setattr(self, named, nn.Sequential(*head) if hidden else head[0])
        self.named = named

    def forward(self, x):
        x = F.adaptive_avg_pool2d(self.features(x), self.grid)
        return getattr(self, self.named)(x.flatten(1))


class CakeCNN(nn.Module):
    """conv1 ... conv4, fc1."""

    def __init__(self, channels=1, classes=10, widths=(32, 64, 64, 64)):
        super().__init__()
        a, b, c, d = widths
        self.conv1, self.conv2 = nn.Conv2d(channels, a, 3), nn.Conv2d(a, b, 4)
        self.conv3, self.conv4, self.fc1 = nn.Conv2d(b, c, 3), nn.Conv2d(c, d, 3), nn.Linear(d, classes)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv2(F.relu(self.conv1(x)))), 2)
        x = F.max_pool2d(F.relu(self.conv3(x)), 2)
        return self.fc1(F.max_pool2d(F.relu(self.conv4(x)), 2).flatten(1))


class CakeLeNet(nn.Module):
    """conv1 ... conv3, fc1, fc2."""

    def __init__(self, channels=1, classes=10, widths=(6, 16, 120, 84)):
        super().__init__()
        a, b, c, d = widths
        self.conv1, self.conv2, self.conv3 = nn.Conv2d(channels, a, 5), nn.Conv2d(a, b, 5), nn.Conv2d(b, c, 5)
        self.fc1, self.fc2 = nn.Linear(c, d), nn.Linear(d, classes)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.relu(self.conv3(F.max_pool2d(F.relu(self.conv2(x)), 2))).flatten(1)
        return self.fc2(F.relu(self.fc1(x)))


class DaflLeNet(nn.Module):
    """features.#, fc.#."""

    def __init__(self, classes=10, widths=(6, 16, 120, 84)):
        super().__init__()
        a, b, c, d = widths
        self.features = nn.Sequential(
            nn.Conv2d(1, a, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(a, b, 5), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(b, c, 5), nn.ReLU(),
        )  # fmt: skip
        self.fc = nn.Sequential(nn.Linear(c, d), nn.ReLU(), nn.Linear(d, classes))

    def forward(self, x):
        return self.fc(self.features(x).flatten(1))


class CakeMLP(nn.Module):
    """layers.#."""

    def __init__(self, inputs=2, classes=2, hidden=20, layers=3):
        super().__init__()
        made = [nn.Linear(inputs, hidden), nn.ReLU()]
        for _ in range(layers - 1):
            made += [nn.Linear(hidden, hidden), nn.ReLU()]
        self.layers = nn.Sequential(*made, nn.Linear(hidden, classes))

    def forward(self, x):
        return self.layers(x.flatten(1))


class CakeResNet4(nn.Module):
    """torchvision's names, with four blocks of 32, 64, 128 and 64 channels behind the stem of ImageNet."""

    def __init__(self, channels=1, classes=10):
        super().__init__()
        self.conv1, self.bn1, before = conv(channels, 32, 7, 2), nn.BatchNorm2d(32), 32
        for number, width in enumerate((32, 64, 128, 64), 1):
            self.add_module(f"layer{number}", nn.Sequential(Block(before, width, 1 + (number > 1), "downsample")))
            before = width
        self.fc = nn.Linear(64, classes)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        return self.fc(self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean((2, 3)))


def small_stem(net: nn.Module, pool: bool = False) -> nn.Module:
    """A torchvision or timm ResNet as people change it for CIFAR."""
    net.conv1 = conv(net.conv1.in_channels, 64, 3)
    net.maxpool = net.maxpool if pool else nn.Identity()
    return net


@torch.no_grad()
def randomised(make: Callable[[], nn.Module]) -> nn.Module:
    """A network in double precision and evaluation mode, of random weights and random running statistics."""
    with on_meta():  # the usual initialisation of millions of weights takes longer than all the rest
        net = make().double()
    net = net.to_empty(device="cpu")
    for name, tensor in net.state_dict().items():
        if tensor.dim() > 1:
            bound = (6 / tensor[0].numel()) ** 0.5
            tensor.uniform_(-bound, bound)
        elif name.endswith(("running_var", "weight")):
            tensor.uniform_(0.5, 1.5)
        elif name.endswith("num_batches_tracked"):
            tensor.fill_(7)
        else:
            tensor.uniform_(-0.5, 0.5)
    return net.eval()
