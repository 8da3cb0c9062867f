"""Running means of loss terms, without a GPU synchronisation at every step."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from dfkd.errors import NonFiniteLoss

WAITING = 64  # steps whose terms are added up together, since each operation costs a GPU's host as much as a small step


class Meter:
    """Sums loss terms on their device. Only `read` synchronises with the GPU.

    `read` also detects NaN and infinity at any step since the last reading. One such term soon makes all others NaN, so
    the steps in which a term was finite are counted, and the error names the term that failed first.

    Args:
        shape: shape of every term: (), or (K,) for K models side by side. The meter of each model then `take`s its
            values.
    """

    def __init__(self, shape: tuple[int, ...] = ()):
        self.shape = shape
        # All by the names of terms that are added together:
        self.waiting: dict[
            tuple[str, ...], list[Tensor]
        ] = {}  # of each step that is not yet in `sums`: (terms, *shape)
        self.sums: dict[tuple[str, ...], Tensor] = {}  # (2, terms, *shape), sums and numbers of finite steps
        self.counts: dict[tuple[str, ...], int] = {}  # of the steps in `sums`
        self.steps = 0

    def add(self, terms: dict[str, Tensor]) -> None:
        """Add the terms of one step, detached from the graph; each has one element, or the shape `shape`."""
        self.steps += 1
        if not terms:
            return
        waiting = self.waiting.setdefault(tuple(terms), [])
        waiting.append(torch.stack([value.detach().float().reshape(self.shape) for value in terms.values()]))
        if len(waiting) == WAITING:
            self._sum_up()

    def take(self, other: "Meter", index: int) -> None:
        """Add the values of model `index` (0 to K - 1) from a meter with terms of shape (K,)."""
        self.steps += other.steps
        self._sum_up()
        other._sum_up()
        for names, sums in other.sums.items():
            self._add(names, sums[..., index], other.counts[names])

    def _sum_up(self) -> None:
        """Add the terms that wait to `sums`."""
        for names, steps in self.waiting.items():
            values = torch.stack(steps)
            self._add(names, torch.stack([values.sum(0), values.isfinite().float().sum(0)]), len(steps))
        self.waiting = {}

    def _add(self, names: tuple[str, ...], sums: Tensor, count: int) -> None:
        self.sums[names] = self.sums[names] + sums if names in self.sums else sums
        self.counts[names] = self.counts.get(names, 0) + count

    def read(self, over_ranks: Callable[[Tensor], Tensor] = lambda sums: sums) -> dict[str, float]:
        """Return {term: mean} over the steps since the last reading; the sums are reset.

        Args:
            over_ranks: averages a tensor over the ranks that share every step (`dfkd.machine.distributed.mean`).

        Raises:
            NonFiniteLoss: a term was not finite; the error names the first one.
        """
        self._sum_up()
        if not self.sums:
            return {}
        means = over_ranks(torch.cat([*self.sums.values()], 1).flatten()).view(2, -1).tolist()
        terms = [(name, count) for names, count in self.counts.items() for name in names]
        totals: dict[str, list[float]] = {}  # {term: [sum, number of finite steps, number of steps]}
        for (name, count), value, finite in zip(terms, *means, strict=True):
            totals[name] = [a + b for a, b in zip(totals.get(name, (0, 0, 0)), (value, finite, count), strict=True)]
        self.sums, self.counts = {}, {}
        fails = {name: count - finite for name, (_, finite, count) in totals.items()}
        name = max(fails, key=fails.get)  # the term that failed most often has failed since the earliest step
        if fails[name]:
            raise NonFiniteLoss(name, self.steps - math.ceil(fails[name]) + 1)
        return {name: value / count for name, (value, _, count) in totals.items()}
