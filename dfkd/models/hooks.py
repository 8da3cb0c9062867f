"""Look inside a network during one forward pass; the hooks are always removed."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from dfkd.models.frozen_norm import moments, normalize

T = TypeVar("T")


@dataclass
class BatchNormStatistics:
    """What one BatchNorm layer saw in one forward pass, beside what it remembers of its training data.

    Attributes:
        mean, var: of the layer's input over batch and positions, per set (S, D); the variance is the biased one.
        running_mean, running_var: the layer's own buffers (D,).
    """

    mean: Tensor
    var: Tensor
    running_mean: Tensor
    running_var: Tensor


def batch_norms(net: nn.Module) -> list[_BatchNorm]:
    """The BatchNorm layers of a network that keep running statistics, in the order of definition."""
    return [m for m in net.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]


def has_convolutions(net: nn.Module) -> bool:
    """Whether a layer of a network convolves neighbouring positions. A kernel of size 1 does not."""
    return any(isinstance(m, _ConvNd) and max(m.kernel_size) > 1 for m in net.modules())


@contextlib.contextmanager
def frozen_norms(net: nn.Module) -> Iterator[None]:
    """Inside the block, BatchNorm layers in evaluation mode have a faster gradient, which their parameters have no part
    in (`dfkd.models.frozen_norm`). Layers of a kind with a forward pass of its own stay as they are."""
    layers = [m for m in batch_norms(net) if type(m).forward is _BatchNorm.forward and not m.training]
    layers = [layer for layer in layers if "forward" not in vars(layer)]
    for layer in layers:
        layer.forward = functools.partial(normalize, layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


@contextlib.contextmanager
def _watch(net: nn.Module, measure: Callable[[_BatchNorm, Tensor], T]) -> Iterator[list[T]]:
    """Record `measure(layer, h)` of every BatchNorm layer's input h (B, D, ...) in the block."""
    seen: list[T] = []
    called: set[_BatchNorm] = set()

    def record(layer: _BatchNorm, arguments: tuple[Tensor, ...]) -> None:
        if layer in called:
            seen.clear()
            called.clear()
        called.add(layer)
        seen.append(measure(layer, arguments[0]))

    handles = [layer.register_forward_pre_hook(record) for layer in batch_norms(net)]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def watch_batch_norms(net: nn.Module, sets: int = 1) -> contextlib.AbstractContextManager[list[BatchNormStatistics]]:
    """Record the input statistics of every BatchNorm layer during the forward passes inside the block.

    Args:
        sets: how many independent, equally large sets the batch consists of; statistics are taken per set.

    Yields:
        a list that fills during the forward pass, one entry a layer. It keeps the graph, so that a loss on it has
        gradients. A second forward inside the block starts the list anew.
    """

    def measure(layer: _BatchNorm, h: Tensor) -> BatchNormStatistics:
        return BatchNormStatistics(*moments(h, sets), layer.running_mean, layer.running_var)

    return _watch(net, measure)


def watch_channel_means(net: nn.Module) -> contextlib.AbstractContextManager[list[Tensor]]:
    """Record every image's channel means (B, D) at the input of every BatchNorm layer, as `watch_batch_norms` does."""
    # sums over many positions: float32 also under autocast
    return _watch(net, lambda layer, h: h.float().reshape(*h.shape[:2], h[0, 0].numel()).mean(2))


def classifier_head(net: nn.Module) -> nn.Linear:
    """The linear layer whose input is the penultimate features, `net.head`.

    Raises:
        ValueError: the network has none.
    """
    head = getattr(net, "head", None)
    if not isinstance(head, nn.Linear):
        raise ValueError(
            f"none are found in {type(net).__name__}: its `head` is {type(head).__name__}, not a "
            f"linear layer; give the network its last layer under that name (dfkd.models.common.FeatureNet)"
        )
    return head


@contextlib.contextmanager
def watch_features(net: nn.Module) -> Iterator[list[Tensor]]:
    """Record the penultimate features (B, D), float32, of the last forward pass inside the block, with their graph.

    Yields:
        a list, empty before a forward pass, then of one tensor.

    Raises:
        ValueError: the network has no linear head.
    """
    seen: list[Tensor] = []

    def record(_head: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        seen[:] = [arguments[0].float()]

    handle = classifier_head(net).register_forward_pre_hook(record)
    try:
        yield seen
    finally:
        handle.remove()
