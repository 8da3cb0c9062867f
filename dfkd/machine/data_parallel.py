"""Data-parallel training: each rank computes its share of every batch, and the steps are those of a single process.

The batch has the size of the recipe, the loss is a mean over its images, and BatchNorm takes its statistics over the
whole batch. So the result is the same as on one process, up to rounding.
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


class DataParallelLoss(DistributedDataParallel):
    """A loss module; its backward pass averages the gradients of the model over all ranks."""

    def checkpoint_state(self) -> dict:
        """Return the state for a checkpoint: empty, since the model is saved by the object that owns it."""
        return {}


class Objective(nn.Module):
    """A loss as a module for DistributedDataParallel. The forward pass computes the loss, not the logits, so the loss
    may use the model in any way.

    Args:
        model: the model to be trained.
        loss: computes the loss terms of a batch with the model.
        learned: another module that the loss trains, if any.
    """

    def __init__(self, model: nn.Module, loss: Loss, learned: nn.Module | None = None):
        super().__init__()
        self.model, self.loss, self.learned = model, loss, learned

    def forward(self, *batch: object) -> dict[str, Tensor]:
        return self.loss(*batch)


def data_parallel_loss(model: nn.Module, loss: Loss, learned: nn.Module | None = None) -> Loss:
    """Wrap a loss so that its backward pass gives every rank of the team the model's gradients of the whole batch.

    With one rank in the team the loss is returned unchanged.

    Args:
        model: the model to be trained.
        loss: computes the loss terms of this rank's share of a batch, each a mean over images.
        learned: another module that the loss trains, if any.
    """
    if distributed.team_size() == 1:
        return loss
    return DataParallelLoss(Objective(model, loss, learned))


def on_whole_batches(network: nn.Module) -> nn.Module:
    """Return a copy of the network whose BatchNorm layers take their statistics over all ranks of the team; with one
    rank, or without BatchNorm, return the network itself."""
    if distributed.team_size() == 1 or not has_batch_norm(network):
        return network
    from timm.layers import convert_sync_batchnorm  # torch's function drops the activations in timm's BatchNorm layers

    return convert_sync_batchnorm(copy.deepcopy(network))


def has_batch_norm(network: nn.Module) -> bool:
    return any(isinstance(module, _BatchNorm) for module in network.modules())


def has_dropout(network: nn.Module) -> bool:
    """Return whether a network drops random units or, in timm's networks, random paths in training."""
    return any((isinstance(m, _DropoutNd) and m.p > 0) or getattr(m, "drop_prob", 0) for m in network.modules())


def single_rank_reason(network: nn.Module, images: int, device: torch.device) -> str | None:
    """Return the reason why several ranks cannot train a network on shares of a batch; None if they can.

    Args:
        images: number of images in the batch.
    """
    if has_batch_norm(network) and device.type != "cuda":
        return "BatchNorm over all ranks needs CUDA"
    if has_dropout(network):
        return "dropout draws for a batch as a whole"
    return f"{images} images cannot be shared evenly" if images % distributed.ranks() else None
