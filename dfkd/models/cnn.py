"""Small convolutional networks: CAKE's BatchNorm-free `cnn` and the BatchNorm `cnn_bn` for small images."""

from torch import nn

from dfkd.models.common import FeatureNet, pools, require_size


def cnn(shape: tuple[int, int, int], classes: int, widths: tuple[int, ...] = (32, 64, 64, 64)) -> FeatureNet:
    """CAKE's CNN (arXiv 2306.02090): four unpadded convolutions, no BatchNorm, 107,658 parameters on MNIST.

    conv3 - conv4 - pool - conv3 - pool - conv3 - pool - linear. For sides of 28 to 32 pixels, which the three pools
    reduce to 1x1, so that there is no average over positions.

    Raises:
        ValueError: a side of the image is outside 28 to 32 pixels.
    """
    require_size("cnn", shape, 28, 32)
    a, b, c, d = widths
    body = nn.Sequential(
        nn.Conv2d(shape[0], a, 3),
        nn.ReLU(),
        nn.Conv2d(a, b, 4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(b, c, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(c, d, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
    )
    return FeatureNet(body, nn.Linear(d, classes), pools(body))


def cnn_bn(
    shape: tuple[int, int, int],
    classes: int,
    widths: tuple[int, ...] = (16, 32, 64),
    norm: str = "batch",
    head: str = "flatten",
) -> FeatureNet:
    """A small VGG-like network for images from 8 pixels a side: (conv3 - norm - ReLU - pool) per width, then linear.

    Args:
        widths: channels of the convolutions, one stage each; every stage halves the image.
        norm: 'batch' (BatchNorm, which the BN prior needs) or 'none'.
        head: 'flatten' (the linear layer has an input per position) or 'pool' (global average over positions).

    Raises:
        ValueError: an unknown norm or head, or an image smaller than 2 ** len(widths).
    """
    if norm not in ("batch", "none"):
        raise ValueError(f"norm must be 'batch' or 'none', got '{norm}'")
    if head not in ("flatten", "pool"):
        raise ValueError(f"head must be 'flatten' or 'pool', got '{head}'")
    require_size("cnn_bn", shape, 2 ** len(widths))
    layers, channels = [], shape[0]
    for width in widths:
        layers.append(nn.Conv2d(channels, width, 3, padding=1, bias=norm == "none"))
        if norm == "batch":
            layers.append(nn.BatchNorm2d(width))
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
        channels = width
    positions = (shape[1] >> len(widths)) * (shape[2] >> len(widths))  # each max-pooling drops an odd row or column
    if head == "pool":
        layers.append(nn.AdaptiveAvgPool2d(1))
        positions = 1
    body = nn.Sequential(*layers, nn.Flatten())
    return FeatureNet(body, nn.Linear(channels * positions, classes), pools(body))
