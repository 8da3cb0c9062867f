"""Turn the scores of a batch into a split."""

import torch
from torch import Tensor


class Threshold:
    """Decides by score which images of a batch are fragile: those on one side of a value, or a share of the batch.

    Args:
        value: fragile = score < value ('low') or score > value ('high').
        quantile: fragile = the round(quantile * B) images of the batch with the lowest ('high': highest) scores; in
            [0, 1]. Among equal scores the earlier image comes first.
        fragile: 'low' or 'high', the side on which images are fragile.

    Raises:
        ValueError: not exactly one of value and quantile is given, or an argument is out of range.
    """

    def __init__(self, value: float | None, quantile: float | None, fragile: str):
        if (value is None) == (quantile is None):
            raise ValueError(f"set exactly one of value and quantile (the other null), got {value=} and {quantile=}")
        if quantile is not None and not 0 <= quantile <= 1:
            raise ValueError(f"quantile must lie in [0, 1], got {quantile}")
        if fragile not in ("low", "high"):
            raise ValueError(f"fragile must be 'low' or 'high', got '{fragile}'")
        self.value, self.quantile, self.low = value, quantile, fragile == "low"

    def __call__(self, score: Tensor) -> Tensor:
        """Return which images are fragile (B,), bool, from their scores (B,)."""
        if self.value is not None:
            return score < self.value if self.low else score > self.value
        fragile = torch.zeros(len(score), dtype=torch.bool, device=score.device)
        order = score.argsort(descending=not self.low, stable=True)
        fragile[order[: round(self.quantile * len(score))]] = True
        return fragile
