"""The prior that features should have the running statistics of the BatchNorm layers."""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from dfkd.models.hooks import BatchNormStatistics
from dfkd.priors.base import PriorTerm, View

NOTHING = 1e-30  # a square of a distance below which it has no direction, and no gradient


class BatchNormPrior(PriorTerm):
    """Synthetic batches should look to every BatchNorm layer as its training data did (DeepInversion, 1912.08795).

        sum over layers of || running_var - Var(h) ||_2 + || running_mean - Mean(h) ||_2

    h is the layer's input; Mean and biased Var are taken over batch and positions. The norms are not squared and not
    averaged over channels, so the scale grows with the network's depth and width.
    """

    needs_batch_norm = True

    def __call__(self, view: View) -> Tensor:
        return distance(view.statistics, [(s.mean, s.var) for s in view.statistics])


def distance(statistics: Sequence[BatchNormStatistics], found: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """sum over layers of || running_var - var ||_2 + || running_mean - mean ||_2, of every set (S,).

    All layers in a few operations: one by one, a deep network takes hundreds, each of a few numbers.

    Args:
        statistics: of every layer.
        found: (mean, var) for every layer, (S, D) each.
    """
    ours = torch.cat([part for pair in found for part in pair], 1)
    theirs = torch.cat([part for s in statistics for part in (s.running_mean, s.running_var)])
    sizes = tuple(part.shape[1] for pair in found for part in pair)
    squares = (ours - theirs).square() @ _owners(sizes, ours.device, ours.dtype)
    return squares.clamp_min(NOTHING).sqrt().sum(1)


@functools.lru_cache(maxsize=16)
def _owners(sizes: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """(sum of sizes, len(sizes)): 1 where a number belongs to a part."""
    return torch.block_diag(*(torch.ones(size, 1) for size in sizes)).to(device, dtype)
