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
        self.sums: dict[str, Tensor] = {}
        self.finite: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}
        self.steps = 0

    def add(self, terms: dict[str, Tensor]) -> None:
        """Add one step's terms (of one number, or of `shape`; the graph is dropped)."""
        self.steps += 1
        for name, value in terms.items():
            value = value.detach().float().reshape(self.shape)
            known = name in self.sums
            self.sums[name] = self.sums[name] + value if known else value
            self.finite[name] = self.finite[name] + value.isfinite() if known else value.isfinite().float()
            self.counts[name] = self.counts.get(name, 0) + 1

    def take(self, other: "Meter", place: int) -> None:
        """Add all that a meter of several things has of the one at `place`."""
        self.steps += other.steps
        for name in other.sums:
            for mine, others in ((self.sums, other.sums), (self.finite, other.finite)):
                mine[name] = mine[name] + others[name][place] if name in mine else others[name][place]
            self.counts[name] = self.counts.get(name, 0) + other.counts[name]

    def read(self, over_ranks: Callable[[Tensor], Tensor] = lambda sums: sums) -> dict[str, float]:
        """Means since the last reading, which starts anew.

        Args:
            over_ranks: makes the means of all ranks out of a rank's own, where several share every step.

        Raises:
            NonFiniteLoss: naming the term that was the first not to be finite.
        """
        if not self.sums:
            return {}
        sums = torch.stack([*self.sums.values(), *self.finite.values()])
        values, finite = over_ranks(sums).view(2, -1).tolist()
        means = {name: value / self.counts[name] for name, value in zip(self.sums, values, strict=True)}
        fails = {name: self.counts[name] - good for name, good in zip(self.sums, finite, strict=True)}
        self.sums, self.finite, self.counts = {}, {}, {}
        name = max(fails, key=fails.get)  # failed most often: since the earliest step
        if fails[name]:
            raise NonFiniteLoss(name, self.steps - math.ceil(fails[name]) + 1)
        return means
