"""torch's optimizers in their fused implementation: one pass over memory on a CPU (three to four times as fast), one
kernel launch on a GPU."""

import functools
import inspect
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim import Optimizer

FUSED = ("cpu", "cuda")  # device types with a fused implementation


def fused(kind: type[Optimizer], parameters: Iterable[Tensor | dict], **options: object) -> Optimizer:
    """Return a fused optimizer. Its updates are those of the plain implementation, up to rounding.

    If a parameter is on a device without a fused implementation, the optimizer is the plain one.

    Args:
        kind: torch.optim.SGD, Adam or AdamW.
        parameters: tensors, or groups {'params': tensors, option: value}.
        options: arguments of `kind`.
    """
    groups = list(parameters)
    tensors = [tensor for group in groups for tensor in (group["params"] if isinstance(group, dict) else [group])]
    can = all(tensor.device.type in FUSED for tensor in tensors)
    optimizer = uncompiled(kind)(groups, fused=can, **options)
    if can:
        optimizer.register_step_pre_hook(match_layouts)
    return optimizer


@functools.cache
def uncompiled(kind: type[Optimizer]) -> type[Optimizer]:
    """Return a subclass of an optimizer class, without the wrappers around its methods that torch.compile needs.

    These wrappers import the compiler at the first step, which takes as long as importing torch, and no optimizer is
    compiled here.
    """
    names = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")
    bare = {name: inspect.unwrap(getattr(kind, name)) for name in names}
    return type(kind.__name__, (kind,), bare | {"step": torch.no_grad()(inspect.unwrap(kind.step))})


def match_layouts(optimizer: Optimizer, _arguments: tuple, _options: dict) -> None:
    """Give every gradient the memory layout of its parameter.

    The fused CPU kernels read both in the order of memory. They give wrong results without an error if, for instance,
    only the gradient is in channels_last.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            gradient = parameter.grad
            if gradient is not None and gradient.stride() != parameter.stride():
                parameter.grad = torch.empty_like(parameter).copy_(gradient)
