"""A frozen network without its BatchNorm layers: in evaluation mode they only scale and shift, as the convolution
before them can."""

import contextlib
import copy
import warnings

import torch
from torch import nn
from torch.fx.experimental.optimization import fuse

TOLERANCE = 1e-2  # of the largest logit: rounding (of TF32 on a GPU, too), and nothing else


@torch.no_grad()
def folded(net: nn.Module, shape: tuple[int, int, int], memo: dict[int, object] | None = None) -> nn.Module | None:
    """A copy of a network in evaluation mode, every BatchNorm that directly follows a convolution folded into it:

        w' = w * gamma / sqrt(running_var + eps),  b' = (b - running_mean) * gamma / sqrt(running_var + eps) + beta

    It maps alike up to rounding, and saves a pass over every feature map forward and one backward. Hooks on the network
    itself are not copied.

    Args:
        net: is not changed. Its own hooks are not called.
        shape: (C, H, W) of its inputs: both are compared on some noise.
        memo: objects by their `id` that the copy refers to, too (`copy.deepcopy`): the owner of hooks, say.

    Returns:
        None if there is nothing to fold, or if this network does not stand it: `torch.fx` cannot follow its forward
        pass, or what came out answers otherwise.
    """
    if not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in net.modules()):
        return None
    weight = next(net.parameters())
    example = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)).to(weight)
    try:
        with warnings.catch_warnings(), full_precision(weight.device):
            warnings.simplefilter("ignore")
            fast = fuse(copy.deepcopy(net, memo), inplace=True).eval().requires_grad_(False)
            expected, found = net.forward(example), fast(example)
            difference = (found - expected).abs().max()
    except Exception:  # whatever a foreign network does when its forward pass is traced
        return None
    return fast if difference <= TOLERANCE * expected.abs().max() else None


def full_precision(device: torch.device) -> contextlib.AbstractContextManager:
    """A context in which autocast is off."""
    can = torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, enabled=False) if can else contextlib.nullcontext()


def watched(net: nn.Module) -> bool:
    """Whether hooks look at what a layer of a network takes or gives."""
    layers = (module for module in net.modules() if module is not net)
    return any(layer._forward_pre_hooks or layer._forward_hooks for layer in layers)
