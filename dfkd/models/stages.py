"""The stages of a network: recording or changing intermediate feature maps.

A network lists its stages in a property `stages`: the modules after which a stage ends, from input to output (in a VGG
the poolings, in a residual network the stem and the last block of every stage, in a transformer the blocks).
"""

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

Change = Callable[[int, Tensor], Tensor | None]


def stages(net: nn.Module) -> list[nn.Module]:
    """Return the modules after which the stages of a network end, from input to output.

    Raises:
        ValueError: the network lists no stages (a multi-layer perceptron, or a user's network without `stages`).
    """
    modules = list(getattr(net, "stages", ()))
    if not modules:
        raise ValueError(
            f"the network {type(net).__name__} names no stages with feature maps; choose a convolutional network or a "
            f"vision transformer (cnn_bn, vgg11_bn, resnet18, wrn_16_1, vit), or give yours a property `stages`"
        )
    return modules


@contextlib.contextmanager
def on_stages(net: nn.Module, change: Change) -> Iterator[None]:
    """Call `change(number, maps)` on the output of every stage during forward passes inside the block.

    Maps are float32, (B, C, H, W), or (B, C, N) for the N tokens of a transformer, independent of the layout and
    precision of the network. The result of `change` replaces them; None leaves them unchanged. The hooks are always
    removed.

    Raises:
        ValueError: the network lists no stages.
    """
    channels_last = getattr(net, "channels_last", False)

    def hook(number: int) -> Callable:
        def call(_module: nn.Module, _arguments: tuple, output: Tensor) -> Tensor | None:
            last = channels_last or output.dim() == 3
            with torch.autocast(output.device.type, enabled=False):
                new = change(number, (output.movedim(-1, 1) if last else output).float())
            return None if new is None else (new.movedim(1, -1) if last else new).to(output.dtype)

        return call

    handles = [module.register_forward_hook(hook(number)) for number, module in enumerate(stages(net))]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def record_stages(net: nn.Module) -> Iterator[list[Tensor]]:
    """Record the output of every stage, in the form of `on_stages`.

    Yields:
        a list that is filled during the forward pass, with the autograd graph. A further forward pass first empties it.
    """
    outputs: list[Tensor] = []

    def record(number: int, maps: Tensor) -> None:
        if number == 0:
            outputs.clear()
        outputs.append(maps)

    with on_stages(net, record):
        yield outputs


@contextlib.contextmanager
def watch_stage_means(net: nn.Module) -> Iterator[list[Tensor]]:
    """Record the channel means (B, D) of every image at the end of every stage but the last, during forward passes
    inside the block: in a residual network, at the input of its groups of blocks (layer1 to layer4 of a ResNet).

    Yields:
        a list as that of `record_stages`.
    """
    means: list[Tensor] = []
    last = len(stages(net)) - 1

    def record(number: int, maps: Tensor) -> None:
        if number == 0:
            means.clear()
        if number < last:
            means.append(maps.flatten(2).mean(2))

    with on_stages(net, record):
        yield means


@torch.no_grad()
def stage_shapes(net: nn.Module, shape: tuple[int, int, int]) -> list[tuple[int, ...]]:
    """Return the shape (C, H, W) or (C, N) of every stage's output for one image of `shape`.

    The network's buffers and mode do not change.

    Raises:
        ValueError: the network lists no stages.
    """
    mode = net.training
    device = next(net.parameters()).device
    with record_stages(net.eval()) as outputs:
        net(torch.zeros(1, *shape, device=device))
    net.train(mode)
    return [tuple(maps.shape[1:]) for maps in outputs]
