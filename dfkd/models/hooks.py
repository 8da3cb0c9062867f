"""Context managers that record intermediate tensors of a forward pass, and always remove their hooks."""

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
    """The input statistics of one BatchNorm layer in one forward pass, and the layer's running statistics.

    Attributes:
        mean, var: mean and biased variance of the layer's input over batch and positions, per set (S, D).
        running_mean, running_var: the layer's buffers (D,).
    """

    mean: Tensor
    var: Tensor
    running_mean: Tensor
    running_var: Tensor


def batch_norms(net: nn.Module) -> list[_BatchNorm]:
    """Return the BatchNorm layers of a network that have running statistics, in the order of definition."""
    return [m for m in net.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]


def has_convolutions(net: nn.Module) -> bool:
    """Whether a network has a convolution with a kernel larger than 1, which combines neighbouring positions."""
    return any(isinstance(m, _ConvNd) and max(m.kernel_size) > 1 for m in net.modules())


@contextlib.contextmanager
def frozen_norms(net: nn.Module) -> Iterator[None]:
    """Context manager: BatchNorm layers in evaluation mode compute faster gradients, of their input but not of their
    parameters (`dfkd.models.frozen_norm`). Layers whose class overrides `forward` are not changed."""
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
    """Record `measure(layer, h)` for the input h (B, D, ...) of every BatchNorm layer inside the block."""
    records: list[T] = []
    called: set[_BatchNorm] = set()

    def record(layer: _BatchNorm, arguments: tuple[Tensor, ...]) -> None:
        if layer in called:
            records.clear()
            called.clear()
        called.add(layer)
        records.append(measure(layer, arguments[0]))

    handles = [layer.register_forward_pre_hook(record) for layer in batch_norms(net)]
    try:
        yield records
    finally:
        for handle in handles:
            handle.remove()


def watch_batch_norms(net: nn.Module, sets: int = 1) -> contextlib.AbstractContextManager[list[BatchNormStatistics]]:
    """Record the input statistics of every BatchNorm layer during the forward passes inside the block.

    Args:
        sets: number of independent, equally large sets in the batch; statistics are computed per set.

    Yields:
        a list that is filled during the forward pass, one entry per layer, with the autograd graph. A second forward
        pass inside the block first empties it.
    """

    def measure(layer: _BatchNorm, h: Tensor) -> BatchNormStatistics:
        return BatchNormStatistics(*moments(h, sets), layer.running_mean, layer.running_var)

    return _watch(net, measure)


def watch_channel_means(net: nn.Module) -> contextlib.AbstractContextManager[list[Tensor]]:
    """Record the channel means (B, D) of every image at the input of every BatchNorm layer; see `watch_batch_norms`."""
    # float32 also under autocast, because it sums over many positions
    return _watch(net, lambda layer, h: h.float().reshape(*h.shape[:2], h[0, 0].numel()).mean(2))


def classifier_head(net: nn.Module) -> nn.Linear:
    """Return `net.head`, the linear layer whose inputs are the penultimate features.

    Raises:
        ValueError: the network has no attribute `head`, or it is not a linear layer.
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
    """Record the penultimate features (B, D), float32, of the last forward pass inside the block, with the autograd
    graph.

    Yields:
        a list that is empty before a forward pass, and has one tensor afterwards.

    Raises:
        ValueError: the network has no linear head.
    """
    records: list[Tensor] = []

    def record(_head: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        records[:] = [arguments[0].float()]

    handle = classifier_head(net).register_forward_pre_hook(record)
    try:
        yield records
    finally:
        handle.remove()


def attention_layers(net: nn.Module) -> list[nn.Module]:
    """Return the self-attention layers of a vision transformer, from input to output; [] for any other network."""
    return list(getattr(net, "attention_layers", ()))


@contextlib.contextmanager
def watch_patches(net: nn.Module) -> Iterator[list[Tensor]]:
    """Record what every self-attention layer of a vision transformer makes of the patches (B, P, D), the mean over its
    heads, float32, during forward passes inside the block, with the autograd graph. Class tokens are left out.

    Yields:
        a list with an entry for every layer. A second forward pass inside the block first empties it.
    """
    layers, records = attention_layers(net), []

    def record(layer: nn.Module) -> Callable:
        def call(_projection: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            if layer is layers[0]:
                records.clear()
            tokens = arguments[0][:, net.prefix_tokens :].float()  # the heads' answers side by side
            records.append(tokens.unflatten(2, (layer.num_heads, -1)).mean(2))

        return call

    handles = [layer.proj.register_forward_pre_hook(record(layer)) for layer in layers]
    try:
        yield records
    finally:
        for handle in handles:
            handle.remove()
