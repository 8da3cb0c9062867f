"""Running means of loss terms that do not stop a GPU at every step."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from dfkd.errors import NonFiniteLoss


class Meter:
    """Sums terms on their device; reading them is the only synchronisation.

    NaN and infinity survive a sum, so a term that was not finite at any step since the last reading is found there;
    and as one such term soon spoils all the others, every term's finite steps are counted: the first to fail is named.

    Args:
        shape: of every term: (), or (K,) of K things at once, whose own meters then `take` their part.
    """

    def __init__(self, shape: tuple[int, ...] = ()):
        self.shape = shape
        # terms that come together are kept together: (2, terms, *shape), their sums and how often they were finite
        self.sums: dict[tuple[str, ...], Tensor] = {}
        self.counts: dict[tuple[str, ...], int] = {}
        self.steps = 0

    def add(self, terms: dict[str, Tensor]) -> None:
        """Add one step's terms (of one number, or of `shape`; the graph is dropped)."""
        self.steps += 1
        if terms:
            values = torch.stack([value.detach().float().reshape(self.shape) for value in terms.values()])
            self._add(tuple(terms), torch.stack([values, values.isfinite().float()]), 1)

    def take(self, other: "Meter", place: int) -> None:
        """Add all that a meter of several things has of the one at `place`."""
        self.steps += other.steps
        for names, sums in other.sums.items():
            self._add(names, sums[..., place], other.counts[names])

    def _add(self, names: tuple[str, ...], sums: Tensor, count: int) -> None:
        self.sums[names] = self.sums[names] + sums if names in self.sums else sums
        self.counts[names] = self.counts.get(names, 0) + count

    def read(self, over_ranks: Callable[[Tensor], Tensor] = lambda sums: sums) -> dict[str, float]:
        """Means since the last reading, which starts anew.

        Args:
            over_ranks: makes the means of all ranks out of a rank's own, where several share every step.

        Raises:
            NonFiniteLoss: naming the term that was the first not to be finite.
        """
        if not self.sums:
            return {}
        found = over_ranks(torch.cat([*self.sums.values()], 1).flatten()).view(2, -1).tolist()
        places = [(name, count) for names, count in self.counts.items() for name in names]
        totals: dict[str, list[float]] = {}  # of a term: sum, steps in which it was finite, steps
        for (name, count), value, finite in zip(places, *found, strict=True):
            totals[name] = [a + b for a, b in zip(totals.get(name, (0, 0, 0)), (value, finite, count), strict=True)]
        self.sums, self.counts = {}, {}
        fails = {name: count - finite for name, (_, finite, count) in totals.items()}
        name = max(fails, key=fails.get)  # failed most often: since the earliest step
        if fails[name]:
            raise NonFiniteLoss(name, self.steps - math.ceil(fails[name]) + 1)
        return {name: value / count for name, (value, _, count) in totals.items()}
