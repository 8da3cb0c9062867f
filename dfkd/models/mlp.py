"""Multi-layer perceptron, for CAKE's 2-D sets, embeddings and other flat inputs."""

from math import prod

from torch import nn

from dfkd.models.common import FeatureNet


def mlp(shape: tuple[int, int, int], classes: int, hidden: int = 20, layers: int = 3) -> FeatureNet:
    """Build an MLP with `layers` hidden layers of `hidden` ReLU units. For 2-D points and two classes, the default is
    2-20-20-20-2, CAKE's toy network with 942 parameters."""
    if hidden < 1 or layers < 1:
        raise ValueError(f"mlp needs hidden >= 1 and layers >= 1, got hidden={hidden}, layers={layers}")
    body, width = [nn.Flatten()], prod(shape)
    for _ in range(layers):
        body += [nn.Linear(width, hidden), nn.ReLU()]
        width = hidden
    return FeatureNet(nn.Sequential(*body), nn.Linear(hidden, classes))
