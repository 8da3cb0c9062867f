"""From what was seen to how suspicious each class is, on scales that do not depend on the network."""

import math
import statistics
from collections.abc import Callable

from dfkd.audit.looks import Looks

Rows = list[float]
FLOOR = 1e-6


def _above(values: Rows, looks: Looks) -> Rows:
    """value - median."""
    middle = statistics.median(values)
    return [value - middle for value in values]


def _in_margins(values: Rows, looks: Looks) -> Rows:
    """(value - median) / the teacher's usual margin: of gains in logits."""
    return [value / max(looks.scale, FLOOR) for value in _above(values, looks)]


def _times(values: Rows, looks: Looks) -> Rows:
    """ln(value / median); what is below a tenth of the median counts as a tenth, negative values too."""
    middle = max(statistics.median(values), FLOOR)
    return [math.log(max(value / middle, 0.1)) for value in values]


def _smaller(values: Rows, looks: Looks) -> Rows:
    """ln(median / value)."""
    return [-value for value in _times(values, looks)]


# How a class stands out among the others, for every look; larger is more suspicious.
SIGNALS: dict[str, Callable[[Rows, Looks], Rows]] = {
    "marks": _in_margins,
    "shifts": _in_margins,
    "masks": _smaller,
    "scouts": _above,
    "margins": _times,
    "flips": _above,
    "last_layer": _times,
}


def signals(looks: Looks) -> dict[str, Rows]:
    """Return {look: how much each class stands out among the others}."""
    return {name: rule(looks.values[name], looks) for name, rule in SIGNALS.items()}
