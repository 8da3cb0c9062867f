"""Checks for weights that no working network can have, and for networks that do not return plain logits."""

import torch
from torch import Tensor, nn
from torch.func import functional_call

from dfkd.errors import ConfigError


def broken_weights(weights: dict[str, Tensor], own: dict[str, Tensor]) -> str | None:
    """Return the name and the defect of the first broken tensor; None if there is none.

    Parameters and statistics must be real, dense and finite in single precision; variances must not be negative.

    Args:
        weights: a state dict.
        own: the state dict of the network that will load it. Entries that are integers there, such as counters, are
            not checked.
    """
    for name, value in weights.items():
        if own[name].is_floating_point():
            wrong = _not_plain(value) or _impossible(name, value.detach().float())
            if wrong:
                return f"{name} {wrong}"
    return None


def refuse_broken(weights: dict[str, Tensor], own: dict[str, Tensor], source: str) -> None:
    """Raise ConfigError if `broken_weights` finds a broken tensor; `source` names the origin in the message."""
    broken = broken_weights(weights, own)
    if broken:
        raise ConfigError(f"the weights in {source} are broken: {broken}; take a checkpoint in which they are whole")


def _not_plain(value: Tensor) -> str | None:
    if value.is_meta:
        return "has a shape but no values"
    if not (value.is_floating_point() or value.is_complex()):
        return f"is of {value.dtype}: quantised weights have to be made floating-point numbers first"
    if value.layout != torch.strided:
        return "is sparse: save it with to_dense()"
    return "is complex" if value.is_complex() else None


def _impossible(name: str, value: Tensor) -> str | None:
    wrong = value.numel() - int(value.isfinite().sum())
    if wrong:
        return f"has {wrong} NaN or infinite values of {value.numel()}"
    if name.rpartition(".")[2] == "running_var" and value.numel() and value.min() < 0:
        return f"has the negative variance {value.min():.3g}"
    return None


def check_training_mode(net: nn.Module, shape: tuple[int, int, int]) -> None:
    """Raise ValueError if a network in training mode returns anything but one tensor (auxiliary logits, for example).

    The network is called with copies of its buffers, such as running statistics, so none of its tensors changes. A
    network that fails there passes the check.

    Args:
        shape: (C, H, W) of its images.
    """
    mode = net.training
    buffers = {name: value.clone() for name, value in net.named_buffers()}
    device = next((tensor.device for tensor in net.state_dict().values()), None)  # None if it has no tensors
    gpus = [device] if str(device).startswith("cuda") else []
    try:
        with torch.no_grad(), torch.random.fork_rng(gpus):
            outputs = functional_call(net.train(), buffers, torch.zeros(2, *shape, device=device))
    except Exception:
        return
    finally:
        net.train(mode)
    if not isinstance(outputs, Tensor):
        raise ValueError(
            f"the network returns a {type(outputs).__name__} in training mode; it must return the logits alone"
        )
