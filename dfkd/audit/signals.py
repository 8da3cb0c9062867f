"""From what was seen to how much each class stands out among the others, on a scale that no network changes."""

import math
import statistics
from dataclasses import dataclass

from dfkd.audit.looks import Looks

TINY = 1e-6


@dataclass(frozen=True)
class Signal:
    """How a look becomes a signal.

    Attributes:
        form: 'plain'; 'ratio': the logarithm of value / median; 'inverse': that of median / value.
        floor: smallest spread of the other classes that is believed, in the same units.
        words: what it means that a class stands out.
    """

    form: str
    floor: float
    words: str


SIGNALS = {
    "marks": Signal("inverse", 0.2, "fewer pixels carry images of all other classes to it than to other classes"),
    "shifts": Signal("inverse", 0.15, "a weaker pattern over the whole image carries all other classes to it"),
    "masks": Signal("inverse", 0.2, "the patch that carries all other classes to it is smaller than for other classes"),
    "margins": Signal("ratio", 0.1, "the network can be made more certain of it than of other classes"),
    "scouts": Signal("plain", 0.1, "images that mean nothing are firmly called this class"),
    "flips": Signal("plain", 0.5, "its synthetic images are harder to change than those of other classes"),
    "last_layer": Signal("ratio", 0.05, "its weights in the last layer are larger than those of other classes"),
}


def signals(looks: Looks) -> dict[str, list[float]]:
    """Return for every look how much each class stands out: (value - mean of the other classes) / their standard
    deviation, not below the floor. Larger is more suspicious."""
    found = {}
    for name, signal in SIGNALS.items():
        row = _in_units(looks.values[name], signal.form)
        found[name] = [stands_out(row, place, signal.floor) for place in range(len(row))]
    return found


def _in_units(values: list[float], form: str) -> list[float]:
    if form in ("ratio", "inverse"):  # below a tenth of the median counts as a tenth, and so do negative values
        middle, sign = max(statistics.median(values), TINY), 1 if form == "ratio" else -1
        return [sign * math.log(max(value / middle, 0.1)) for value in values]
    return list(values)


def stands_out(row: list[float], place: int, floor: float) -> float:
    """Return (row[place] - mean of the others) / their standard deviation, which is not below `floor`."""
    others = [*row[:place], *row[place + 1 :]]
    middle = statistics.fmean(others)
    spread = math.dist(others, [middle] * len(others)) / math.sqrt(len(others))  # statistics.pstdev is slow
    return (row[place] - middle) / math.hypot(spread, floor)
