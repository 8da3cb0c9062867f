"""Training on several ranks, each with its share of every batch, in the steps that one process would take.

The batch is the recipe's, the loss a mean over its images, BatchNorm looks at the whole of it: the same up to rounding.
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.parallel import DistributedDataParallel

from dfkd.machine import distributed

Loss = Callable[..., dict[str, Tensor]]


class Replica(DistributedDataParallel):
    """A loss whose gradients for a model become, in the backward pass, the means over all ranks."""

    def checkpoint_state(self) -> dict:
        """For a checkpoint: nothing, the model stands elsewhere."""
        return {}


class Objective(nn.Module):
    """A loss as a module, that DistributedDataParallel can see the backward pass of, however it uses the model.

    Args:
        model: is trained.
        loss: of a batch.
        learned: what is trained beside the model, if anything.
    """

    def __init__(self, model: nn.Module, loss: Loss, learned: nn.Module | None = None):
        super().__init__()
        self.model, self.loss, self.learned = model, loss, learned

    def forward(self, *batch: object) -> dict[str, Tensor]:
        return self.loss(*batch)


def replicated(model: nn.Module, loss: Loss, learned: nn.Module | None = None) -> Loss:
    """The loss, in the way that gives every rank of the team the gradients of the whole batch for the model.

    Args:
        loss: of this rank's share of a batch: terms, each a mean over images.
        learned: what is trained beside the model, if anything.
    """
    if distributed.team() == 1:
        return loss
    return Replica(Objective(model, loss, learned))


def on_whole_batches(network: nn.Module) -> nn.Module:
    """The network, or a copy whose BatchNorm layers take their statistics over all ranks of the team."""
    if distributed.team() == 1 or not has_batch_norm(network):
        return network
    from timm.layers import convert_sync_batchnorm  # torch's own drops the activations of timm's layers

    return convert_sync_batchnorm(copy.deepcopy(network))


def has_batch_norm(network: nn.Module) -> bool:
    return any(isinstance(module, _BatchNorm) for module in network.modules())


def has_dropout(network: nn.Module) -> bool:
    """Whether it draws random numbers in training: of units, or (timm) of whole paths."""
    return any((isinstance(m, _DropoutNd) and m.p > 0) or getattr(m, "drop_prob", 0) for m in network.modules())


def why_not_shared(network: nn.Module, images: int, device: torch.device) -> str | None:
    """Why several ranks cannot train a network on a batch together, or None if they can.

    Args:
        images: of the batch.
    """
    if has_batch_norm(network) and device.type != "cuda":
        return "BatchNorm over all ranks needs CUDA"
    if has_dropout(network):
        return "dropout draws for a batch as a whole"
    return f"{images} images cannot be shared evenly" if images % distributed.ranks() else None
