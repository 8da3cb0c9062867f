"""VGG-11/13 for small images, with and without BatchNorm (arXiv 1409.1556, one linear layer as in CMI's benchmark)."""

from torch import nn

from dfkd.models.common import FeatureNet, pools

# torchvision's configurations A and B; "M" halves the image.
LAYOUTS = {
    11: (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"),
    13: (64, 64, "M", 128, 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"),
}


def vgg(shape: tuple[int, int, int], classes: int, depth: int = 11, batch_norm: bool = True) -> FeatureNet:
    """VGG with a global average and a single linear layer; 9.2 M (VGG-11) and 9.4 M (VGG-13) parameters.

    A pool that would shrink the image below one pixel is left out, so that 16x16 and 28x28 images pass.

    Raises:
        ValueError: depth is not 11 or 13.
    """
    if depth not in LAYOUTS:
        raise ValueError(f"vgg depth must be one of {sorted(LAYOUTS)}, got {depth}")
    layers, channels, size = [], shape[0], min(shape[1:])
    for item in LAYOUTS[depth]:
        if item == "M":
            if size >= 2:
                layers.append(nn.MaxPool2d(2))
                size //= 2
            continue
        layers.append(nn.Conv2d(channels, item, 3, padding=1))
        if batch_norm:
            layers.append(nn.BatchNorm2d(item))
        layers.append(nn.ReLU())
        channels = item
    body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    ends = pools(layers)
    if ends[-1] != len(layers) - 1:  # the pools of the last stages were left out
        ends.append(len(layers) - 1)
    net = FeatureNet(body, nn.Linear(512, classes), ends)
    for module in net.modules():  # without it the plain (no-BN) variants do not start to learn
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(module.bias)
    return net
