"""Generators that start anew: seeded, without touching the global random stream."""

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from dfkd.machine.runtime import seeded


def check_renewable(net: nn.Module) -> None:
    """Raise ValueError if a part of a network has parameters, but no `reset_parameters` to draw them anew with."""
    for name, module in net.named_modules():
        if next(module.parameters(recurse=False), None) is not None and not hasattr(module, "reset_parameters"):
            raise ValueError(
                f"the generator's part '{name}' ({type(module).__name__}) cannot be initialised anew: it has "
                f"parameters of its own, but no reset_parameters()"
            )


@torch.no_grad()
def renew(net: nn.Module, seed: int, *names: str | int) -> None:
    """Initialise every part of a network anew, in place, as it was when it was made.

    Args:
        seed, names: of the random stream, as in `dfkd.machine.runtime.stream_seed`.
    """
    with seeded(seed, *names):
        for module in net.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()


@torch.no_grad()
def renew_first(net: nn.Module, seed: int, *names: str | int) -> None:
    """Initialise the first linear layer and the first BatchNorm of a network anew, in place: its view of z."""
    with seeded(seed, *names):
        for kind in (nn.Linear, _BatchNorm):
            first = next((module for module in net.modules() if isinstance(module, kind)), None)
            if first is not None:
                first.reset_parameters()
