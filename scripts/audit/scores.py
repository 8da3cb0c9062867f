"""How well a score tells trapped teachers from clean ones."""

from collections.abc import Sequence
from statistics import mean

import numpy as np

from dfkd.measures.roc import auroc
from dfkd.measures.roc import tpr_at_fpr as caught  # members are the trapped teachers

__all__ = ["auroc", "calibration", "caught", "interval"]

BINS = 5  # of a calibration diagram


def interval(trapped: Sequence[float], clean: Sequence[float], times: int = 500) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the AUROC: teachers of both kinds are drawn again with replacement."""
    draw = np.random.default_rng(0)
    ours, others = (draw.choice(np.asarray(scores), (times, len(scores))) for scores in (trapped, clean))
    found = (1 + np.sign(ours[:, :, None] - others[:, None])).mean((1, 2)) / 2  # the share of pairs in the right order
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def calibration(chances: Sequence[float], trapped: Sequence[bool]) -> tuple[float, list[tuple[float, float, int]]]:
    """Return the expected calibration error, and (mean probability, share of trapped, number) of every bin that has
    teachers."""
    bins: dict[int, list[tuple[float, bool]]] = {}
    for chance, is_trapped in zip(chances, trapped, strict=True):
        bins.setdefault(min(int(chance * BINS), BINS - 1), []).append((chance, is_trapped))
    rows = [(mean(c for c, _ in row), mean(t for _, t in row), len(row)) for _, row in sorted(bins.items())]
    error = sum(count * abs(chance - share) for chance, share, count in rows) / len(chances)
    return error, rows
