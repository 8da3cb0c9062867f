"""Seeded reinitialisation of generators, which does not affect the global random stream."""

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from dfkd.machine.runtime import seeded


def check_renewable(net: nn.Module) -> None:
    """Raise ValueError if a submodule has parameters of its own, but no method `reset_parameters`."""
    for name, module in net.named_modules():
        if next(module.parameters(recurse=False), None) is not None and not hasattr(module, "reset_parameters"):
            raise ValueError(
                f"the generator's part '{name}' ({type(module).__name__}) cannot be initialised anew: it has "
                f"parameters of its own, but no reset_parameters()"
            )


@torch.no_grad()
def renew(net: nn.Module, seed: int, *names: str | int) -> None:
    """Reinitialise all submodules of a network in place, by their `reset_parameters`.

    Args:
        seed, names: identify the random stream, as in `dfkd.machine.runtime.stream_seed`.
    """
    with seeded(seed, *names):
        for module in net.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()


@torch.no_grad()
def renew_first(net: nn.Module, seed: int, *names: str | int) -> None:
    """Reinitialise the first linear layer and the first BatchNorm of a generator in place: the layers that read z."""
    with seeded(seed, *names):
        for kind in (nn.Linear, _BatchNorm):
            first = next((module for module in net.modules() if isinstance(module, kind)), None)
            if first is not None:
                first.reset_parameters()
