"""torch's optimizers in their fused form: one pass over memory on a CPU (three to four times as fast), one launch on a
GPU."""

import functools
import inspect
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim import Optimizer

FUSED = ("cpu", "cuda")  # devices that have the form


def fused(kind: type[Optimizer], parameters: Iterable[Tensor | dict], **options: object) -> Optimizer:
    """An optimizer of the kind (SGD, Adam, AdamW); the numbers are those of its plain form, up to rounding.

    Args:
        parameters: tensors, or groups {'params': tensors, option: value}.
        options: of the kind.
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
    """The same kind without what torch.compile needs around its methods: it imports the compiler at the first step,
    which takes as long as importing torch, and nothing is compiled here."""
    names = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")
    bare = {name: inspect.unwrap(getattr(kind, name)) for name in names}
    return type(kind.__name__, (kind,), bare | {"step": torch.no_grad()(inspect.unwrap(kind.step))})


def match_layouts(optimizer: Optimizer, _arguments: tuple, _options: dict) -> None:
    """Lay gradients out as their parameters are: the fused CPU kernels take the numbers in the order of memory, and say
    nothing of a gradient in channels_last for a parameter that is not."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            gradient = parameter.grad
            if gradient is not None and gradient.stride() != parameter.stride():
                parameter.grad = torch.empty_like(parameter).copy_(gradient)
