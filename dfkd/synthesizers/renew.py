"""Seeded reinitialisation of generators, which does not affect the global random stream."""

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from dfkd.machine.runtime import seeded


def check_renewable(net: nn.Module) -> None:
    """Raise ValueError if a submodule has parameters of its own, but no method `reset_parameters`."""
    for name, module in net.named_modules():
        if next(module.parameters(recurse=False), None) is not None and not hasattr(module, "reset_parameters"):
            raise ValueError(
                f"the generator's part '{name}' ({type(module).__name__}) cannot be initialised anew: it has "
                f"parameters of its own, but no reset_parameters()"
            )


def check_std(std: float | None) -> None:
    """Raise ValueError unless std is None or positive."""
    if std is not None and std <= 0:
        raise ValueError(f"init_std must be positive, or null for torch's own initialisation, got {std}")


@torch.no_grad()
def renew(net: nn.Module, seed: int, *names: str | int, std: float | None = None) -> None:
    """Reinitialise all submodules of a network in place, by their `reset_parameters`.

    Args:
        seed, names: identify the random stream, as in `dfkd.machine.runtime.stream_seed`.
        std: None keeps what `reset_parameters` gives. Otherwise the weights of convolutions and linear layers are then
            drawn from N(0, std), those of BatchNorm layers from N(1, std), and biases are 0: DCGAN's initialisation.
    """
    with seeded(seed, *names):
        for module in net.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
            if std is not None and isinstance(module, (nn.Linear, _ConvNd, _BatchNorm)):
                _draw(module, 1.0 if isinstance(module, _BatchNorm) else 0.0, std)


@torch.no_grad()
def renew_first(net: nn.Module, seed: int, *names: str | int, std: float | None = None) -> None:
    """Reinitialise the first linear layer and the first BatchNorm of a generator in place: the layers that read z.

    Args:
        seed, names: as in `renew`.
        std: None: by their `reset_parameters`. Otherwise the weights of both are then drawn from N(0, std), and their
            biases are 0. (For the BatchNorm, too, the mean is 0, not 1, in the public code of Fast.)
    """
    with seeded(seed, *names):
        for kind in (nn.Linear, _BatchNorm):
            first = next((module for module in net.modules() if isinstance(module, kind)), None)
            if first is not None:
                first.reset_parameters()
                if std is not None:
                    _draw(first, 0.0, std)


def _draw(module: nn.Module, mean: float, std: float) -> None:
    if module.weight is not None:
        module.weight.normal_(mean, std)
    if module.bias is not None:
        module.bias.zero_()
