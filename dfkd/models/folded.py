"""Folding of BatchNorm layers into convolutions: in evaluation mode they only scale and shift, which the weights of the
preceding convolution can do. On a GPU, convolutions are then replaced by faster ones (`dfkd.models.fused`)."""

import copy
import warnings

import torch
from torch import nn
from torch.fx.experimental.optimization import fuse

from dfkd.machine.precision import exact_float32
from dfkd.models.fused import fuse_activations, widen_first

TOLERANCE = 1e-2  # allowed difference, relative to the largest logit: enough for rounding


@torch.no_grad()
def fold_batch_norms(
    net: nn.Module, shape: tuple[int, int, int], memo: dict[int, object] | None = None, to_compile: bool = False
) -> nn.Module | None:
    """Copy a network in evaluation mode, with every BatchNorm that directly follows a convolution folded into it:

        w' = w * gamma / sqrt(running_var + eps),  b' = (b - running_mean) * gamma / sqrt(running_var + eps) + beta

    The copy computes the same function up to rounding, and saves one pass over every feature map forward and one
    backward. Hooks on the network itself are not copied.

    Args:
        net: the network; it is not changed, and hooks on it are not called.
        shape: (C, H, W) of its inputs, for a comparison of both networks on noise.
        memo: objects by `id` that are shared and not copied (as in `copy.deepcopy`), such as the owner of hooks.
        to_compile: leave activations to `torch.compile`.

    Returns:
        the copy; None if there is nothing to gain, if `torch.fx` cannot trace the forward pass, or if the outputs of
        the copy differ.
    """
    weight = next(net.parameters(), None)
    on_gpu = weight is not None and weight.device.type == "cuda"
    gains = (nn.modules.batchnorm._BatchNorm, nn.Conv2d) if on_gpu else nn.modules.batchnorm._BatchNorm
    if not any(isinstance(module, gains) for module in net.modules()):
        return None
    example = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)).to(weight)
    try:
        with warnings.catch_warnings(), exact_float32(weight.device):
            warnings.simplefilter("ignore")
            fast = fuse(copy.deepcopy(net, memo), inplace=True).eval().requires_grad_(False)
            fast = widen_first(fast) if on_gpu else fast
            fast = fuse_activations(fast) if on_gpu and not to_compile else fast
            expected, logits = net.forward(example), fast(example)
            difference = (logits - expected).abs().max()
    except Exception:  # a user's network can raise anything when its forward pass is traced
        return None
    return fast if difference <= TOLERANCE * expected.abs().max() else None


def has_layer_hooks(net: nn.Module) -> bool:
    """Whether a layer of a network has forward hooks; hooks on the network itself do not count."""
    layers = (module for module in net.modules() if module is not net)
    return any(layer._forward_pre_hooks or layer._forward_hooks for layer in layers)
