"""LeNet-5 and its half-width student (the DAFL pair, arXiv 1904.01186)."""

from torch import nn

from dfkd.models.common import FeatureNet, pools, require_size


def lenet(shape: tuple[int, int, int], classes: int, widths: tuple[int, ...] = (6, 16, 120, 84)) -> FeatureNet:
    """LeNet-5 with ReLU and max-pooling: 61,706 parameters for 1 channel and 10 classes.

    Takes 32x32 images. Smaller images, down to 28x28, are zero-padded to 32x32, as in the original.

    Raises:
        ValueError: a side of the image is outside 28 to 32 pixels.
    """
    require_size("lenet", shape, 28, 32)
    a, b, c, d = widths
    rows, columns = 32 - shape[1], 32 - shape[2]
    body = nn.Sequential(
        nn.ZeroPad2d((columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)),
        nn.Conv2d(shape[0], a, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(a, b, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(b, c, 5),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(c, d),
        nn.ReLU(),
    )
    return FeatureNet(body, nn.Linear(d, classes), pools(body))


def lenet_half(shape: tuple[int, int, int], classes: int) -> FeatureNet:
    """LeNet-5 with half the width everywhere: 15,738 parameters for 1 channel and 10 classes."""
    return lenet(shape, classes, widths=(3, 8, 60, 42))
