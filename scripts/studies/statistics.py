"""Comparisons of cells that share a seed, and so a teacher."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Difference:
    """The mean of paired differences with its 95 % t-interval.

    Attributes:
        mean: the mean difference.
        low, high: ends of the interval; NaN for fewer than two pairs.
        p: two-sided p-value of the paired t-test of no difference; NaN for fewer than two pairs.
        n: number of pairs.
    """

    mean: float
    low: float
    high: float
    p: float
    n: int

    def __str__(self) -> str:
        return self.text()

    def text(self, form: str = ".1f") -> str:
        """Return '+1.2 (-0.3 to +2.7)', or the mean alone for one pair.

        Args:
            form: format of a number without its sign.
        """
        mean, low, high = (format(value, f"+{form}") for value in (self.mean, self.low, self.high))
        return f"{mean} ({low} to {high})" if self.n > 1 else mean


def t_interval(values: Sequence[float]) -> Difference:
    """Return the mean of values with its 95 % t-interval and the p-value of the mean 0.

    If all values are equal but for the rounding of their sums, there is no test (p is NaN): a spread of 0 is what
    rounded percentages of few seeds happen to have, not evidence.

    Raises:
        ValueError: there is no value.
    """
    x = np.asarray(values, dtype=float)
    if not len(x):
        raise ValueError("no cells to compare: no seed has finished in both groups")
    mean = x.mean().item()
    if len(x) == 1:
        return Difference(mean, np.nan, np.nan, np.nan, 1)
    error = x.std(ddof=1).item() / len(x) ** 0.5
    if np.ptp(x) < 1e-9:
        return Difference(mean, mean, mean, np.nan, len(x))
    half = stats.t.ppf(0.975, len(x) - 1).item() * error
    p = 2 * stats.t.sf(abs(mean) / error, len(x) - 1).item()
    return Difference(mean, mean - half, mean + half, p, len(x))


def paired(ours: dict[object, float], theirs: dict[object, float]) -> Difference:
    """Return the mean of ours - theirs over the seeds that both have.

    Args:
        ours, theirs: {seed: value}.
    """
    return t_interval([ours[seed] - theirs[seed] for seed in ours if seed in theirs])


def holm(p: Sequence[float]) -> list[float]:
    """Adjust p-values for several tests (Holm 1979): sorted, the i-th smallest times (m - i), never below the one
    before it, at most 1. NaN stays NaN and does not count as a test."""
    order = sorted((value, i) for i, value in enumerate(p) if not np.isnan(value))
    adjusted, largest = [float("nan")] * len(p), 0.0
    for rank, (value, i) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * value))
        adjusted[i] = largest
    return adjusted


def p_text(p: float) -> str:
    """Return a p-value as text; '-' where there was no test."""
    return "-" if np.isnan(p) else f"{p:.2g}"


@dataclass(frozen=True)
class Effect:
    """One term of an analysis of variance.

    Attributes:
        size: mean where the factor is on minus mean where it is off; of an interaction: half the difference of the
            effects that one factor has where the other is on and where it is off.
        share: its share of the total sum of squares, seeds left out, in [0, 1].
        p: p-value of its F-test with 1 and `residual` degrees of freedom.
    """

    size: float
    share: float
    p: float


def analysis_of_variance(
    on: dict[str, Sequence[bool]], blocks: Sequence[object], values: Sequence[float]
) -> tuple[dict[str, Effect], int]:
    """Analyse a complete two-level design that is repeated in blocks (Montgomery, Design and Analysis of Experiments).

    The model is block + every factor + every interaction of two factors; all else is residual.

    Args:
        on: {factor: whether it is on, for every value}.
        blocks: the block (seed) of every value.
        values: the observations.

    Returns:
        ({'a' or 'a x b': effect}, degrees of freedom of the residual).

    Raises:
        ValueError: the design is not complete in every block.
    """
    y, names = np.asarray(values, dtype=float), list(on)
    codes = {name: np.where(on[name], 1.0, -1.0) for name in names}
    runs = {(block, *(bool(on[name][i]) for name in names)) for i, block in enumerate(blocks)}
    if len(runs) != len(y) or len(y) != len(set(blocks)) * 2 ** len(names):
        raise ValueError(f"not every combination of {', '.join(names)} has finished once for every seed")
    for block in set(blocks):
        here = np.array([other == block for other in blocks])
        y[here] -= y[here].mean()
    terms = dict(codes)
    for i, a in enumerate(names):
        terms |= {f"{a} x {b}": codes[a] * codes[b] for b in names[i + 1 :]}
    size = {name: 2 * (code * y).mean().item() for name, code in terms.items()}
    squares = {name: len(y) * (value / 2) ** 2 for name, value in size.items()}
    total = (y**2).sum().item()
    freedom = len(y) - len(set(blocks)) - len(terms)
    residual = (total - sum(squares.values())) / freedom
    return {
        name: Effect(size[name], squares[name] / total, stats.f.sf(squares[name] / residual, 1, freedom).item())
        for name in terms
    }, freedom
