"""A prior that matches the input statistics of BatchNorm layers to their running statistics."""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from dfkd.models.hooks import BatchNormStatistics
from dfkd.priors.base import PriorTerm, TeacherPass

NOTHING = 1e-30  # lower bound of squared distances: at 0 the gradient of the square root is not defined


class BatchNormPrior(PriorTerm):
    """Distance between input statistics and running statistics of BatchNorm layers (DeepInversion, arXiv 1912.08795).

        sum over layers of || running_var - Var(h) ||_2 + || running_mean - Mean(h) ||_2

    h is the layer's input; Mean and biased Var are over batch and positions. The norms are neither squared nor averaged
    over channels, so the scale grows with the network's depth and width.
    """

    needs_batch_norm = True

    def __call__(self, teacher_pass: TeacherPass) -> Tensor:
        return distance(teacher_pass.statistics, joined(teacher_pass.statistics))


def joined(statistics: Sequence[BatchNormStatistics]) -> Tensor:
    """Return mean and variance of all layers side by side, (S, 2 * sum of D).

    All layers are handled in a few operations, because one by one a deep network takes hundreds of tiny operations.
    """
    return torch.cat([part for s in statistics for part in (s.mean, s.var)], 1)


def distance(statistics: Sequence[BatchNormStatistics], measured: Tensor) -> Tensor:
    """sum over layers of || running_var - var ||_2 + || running_mean - mean ||_2, for every set (S,).

    Args:
        statistics: statistics of every layer, of which the running ones are used.
        measured: what they are compared with, in the form of `joined`.
    """
    running = torch.cat([part for s in statistics for part in (s.running_mean, s.running_var)])
    sizes = tuple(part.shape[1] for s in statistics for part in (s.mean, s.var))
    squares = (measured - running).square() @ _owners(sizes, measured.device, measured.dtype)
    return squares.clamp_min(NOTHING).sqrt().sum(1)


@functools.lru_cache(maxsize=16)
def _owners(sizes: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return a matrix (sum of sizes, len(sizes)) that sums consecutive groups of these sizes: 1 where row i belongs to
    group j, else 0."""
    return torch.block_diag(*(torch.ones(size, 1) for size in sizes)).to(device, dtype)
