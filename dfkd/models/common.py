"""The form that all networks here share: `forward(x) = head(features(x))`, with `head` the last linear layer."""

from collections.abc import Iterable

from torch import Tensor, nn


class FeatureNet(nn.Module):
    """A feature extractor and a linear classifier.

    Args:
        body: maps images (B, C, H, W) to feature vectors (B, D).
        head: the classifier, Linear(D, classes).
        stage_ends: indices of the layers of `body` after which a stage with feature maps ends (`dfkd.models.stages`).
    """

    def __init__(self, body: nn.Module, head: nn.Linear, stage_ends: Iterable[int] = ()):
        super().__init__()
        self.body = body
        self.head = head
        self.stage_ends = tuple(stage_ends)

    @property
    def stages(self) -> list[nn.Module]:
        """The layers after which the stages end; none if there are no feature maps."""
        return [self.body[end] for end in self.stage_ends]

    def features(self, x: Tensor) -> Tensor:
        """Penultimate features (B, D) of images (B, C, H, W)."""
        return self.body(x)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, classes) of images (B, C, H, W)."""
        return self.head(self.features(x))


def pools(layers: Iterable[nn.Module]) -> list[int]:
    """Return the indices of the max-pooling layers, where the stages of a plain convolutional network end."""
    return [number for number, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]


def require_size(name: str, shape: tuple[int, int, int], smallest: int, largest: int | None = None) -> None:
    """Raise ValueError unless both sides of `shape` (C, H, W) lie in [smallest, largest]."""
    low, high = min(shape[1:]), max(shape[1:])
    if low < smallest or (largest is not None and high > largest):
        limits = f"{smallest} to {largest}" if largest else f"at least {smallest}"
        raise ValueError(
            f"network '{name}' takes images of {limits} pixels a side, got {shape[1]}x{shape[2]}; "
            f"set data.size, or choose another network (cnn_bn and resnet18 take any size from 8; points "
            f"and embeddings need mlp)"
        )
