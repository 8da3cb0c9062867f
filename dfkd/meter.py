"""Running means of loss terms that do not stop a GPU at every step."""

import torch
from torch import Tensor

from dfkd.errors import NonFiniteLoss


class Meter:
    """Sums terms on their device; reading them is the only synchronisation.

    NaN and infinity survive a sum, so a term that was not finite at any step since the last reading is found there.
    """

    def __init__(self):
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}
        self.steps = 0

    def add(self, terms: dict[str, Tensor]) -> None:
        """Add one step's terms (scalars; the graph is dropped)."""
        self.steps += 1
        for name, value in terms.items():
            value = value.detach().float()
            self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.counts[name] = self.counts.get(name, 0) + 1

    def read(self) -> dict[str, float]:
        """Means since the last reading, which starts anew.

        Raises:
            NonFiniteLoss: naming the first term that was not finite.
        """
        if not self.sums:
            return {}
        values = torch.stack([value.reshape(()) for value in self.sums.values()]).tolist()
        means = {name: value / self.counts[name] for name, value in zip(self.sums, values, strict=True)}
        self.sums, self.counts = {}, {}
        for name, value in means.items():
            if value != value or value in (float("inf"), float("-inf")):
                raise NonFiniteLoss(name, self.steps)
        return means
