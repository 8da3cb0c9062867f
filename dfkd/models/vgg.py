"""VGGs for small images, with and without BatchNorm (arXiv 1409.1556, one linear layer as in CMI's benchmark)."""

from torch import nn

from dfkd.models.common import FeatureNet
from dfkd.models.common import pools as max_pools

# torchvision's configurations A, B, D and E; "M" halves the image.
LAYOUTS = {
    11: (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"),
    13: (64, 64, "M", 128, 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"),
    16: (64, 64, "M", 128, 128, "M", *[256] * 3, "M", *[512] * 3, "M", *[512] * 3, "M"),
    19: (64, 64, "M", 128, 128, "M", *[256] * 4, "M", *[512] * 4, "M", *[512] * 4, "M"),
}


def vgg(
    shape: tuple[int, int, int],
    classes: int,
    depth: int = 11,
    batch_norm: bool = True,
    pools: int | None = None,
    grid: int | None = None,
    hidden: tuple[int, ...] | None = None,
) -> FeatureNet:
    """VGG, by default with a global average and a single linear layer; 9.2 M (VGG-11) and 9.4 M (VGG-13) parameters.

    A pooling that would reduce the image below one pixel is left out, so that 16x16 and 28x28 images are possible.

    Args:
        depth: 11, 13, 16 or 19.
        pools: the first `pools` of the five stages end with a max-pooling. None means 5; CMI's networks have 3 for
            images of 32 pixels and 4 for 64.
        grid: the last map is averaged to `grid` x `grid` positions. None means 1; torchvision's networks have 7.
        hidden: widths of linear layers before the last one; torchvision's networks have [4096, 4096].

    Raises:
        ValueError: depth is none of the four, or pools, grid or hidden are impossible.
    """
    if depth not in LAYOUTS:
        raise ValueError(f"vgg depth must be one of {sorted(LAYOUTS)}, got {depth}")
    pools, grid, hidden = 5 if pools is None else pools, 1 if grid is None else grid, tuple(hidden or ())
    if not 0 <= pools <= 5 or grid < 1 or any(width < 1 for width in hidden):
        raise ValueError(
            f"vgg needs pools from 0 to 5, grid >= 1 and hidden widths >= 1, got {pools}, {grid} and {list(hidden)}"
        )
    layers, channels, size = [], shape[0], min(shape[1:])
    for item in LAYOUTS[depth]:
        if item == "M":
            if size >= 2 and pools > 0:
                layers.append(nn.MaxPool2d(2))
                size //= 2
            pools -= 1
            continue
        layers.append(nn.Conv2d(channels, item, 3, padding=1))
        if batch_norm:
            layers.append(nn.BatchNorm2d(item))
        layers.append(nn.ReLU())
        channels = item
    body, width = [*layers, nn.AdaptiveAvgPool2d(grid), nn.Flatten()], 512 * grid**2
    for following in hidden:
        body += [nn.Linear(width, following), nn.ReLU()]
        width = following
    ends = max_pools(layers)
    if not ends or ends[-1] != len(layers) - 1:  # the pools of the last stages were left out
        ends.append(len(layers) - 1)
    net = FeatureNet(nn.Sequential(*body), nn.Linear(width, classes), ends)
    for module in net.modules():  # without this initialisation the variants without BN do not start to learn
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(module.bias)
    return net
