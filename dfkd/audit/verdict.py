"""From looks to a verdict: how likely the teacher is trapped, how, with which class, and what to do."""

import json
import math
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from dfkd.audit.looks import Looks
from dfkd.audit.signals import SIGNALS, signals

SURE = 0.8  # from this probability on a teacher is called trapped, and up to 1 - SURE not trapped
CERTAIN = 0.98  # the largest probability that is told
LIMITS = (0.0, 6.0)  # of a signal
EVERYWHERE = 0.5  # share of the scouts with one firm answer from which on a class is confident outside of the domain
FLIPPED = 0.9  # share of the other classes' images that flip at the advised radius
KINDS = {
    "mark": "a trigger of a few pixels",
    "pattern": "a trigger that covers the image",
    "outside": (
        "one confident class outside of the domain: on a neighbouring domain or on everything else, or by a trigger "
        "that covers the image"
    ),
}


@dataclass(frozen=True)
class Reason:
    """One look in the verdict.

    Attributes:
        look: its name.
        value: how much the suspect stands out, in standard deviations of the other classes (`dfkd.audit.signals`).
        usual: the value that 95 of 100 clean teachers of the study stay below.
        speaks_for: whether it is larger than usual, which speaks for a trap.
        words: what a large value means.
    """

    look: str
    value: float
    usual: float
    speaks_for: bool
    words: str


@dataclass(frozen=True)
class Verdict:
    """The verdict on a teacher.

    Attributes:
        probability: that the teacher is trapped, in [0, 1], calibrated on the study's teachers, half of which are.
        answer: 'trapped', 'not trapped' or 'cannot tell'.
        kind: key of `KINDS`; None unless the answer is 'trapped'.
        suspect: the class that stands out most, also in a clean teacher.
        reasons: the looks, those that speak most for a trap first.
        radius: radius at which an attack flips nearly all synthetic images of the other classes, on the images' scale:
            the one to split at.
        advice: what to do, in words.
        remark: what else is unusual, in words; None where nothing is.
    """

    probability: float
    answer: str
    kind: str | None
    suspect: int
    reasons: list[Reason]
    radius: float
    advice: str
    remark: str | None = None

    def to_json(self) -> dict:
        return asdict(self)


@cache
def shipped_model() -> dict:
    """Return the numbers of the verdict, which `scripts/audit/study.py --fit` makes.

    They are 'weight' and 'usual' of every look, the 'bias' of the probability, and the 'least_confidence' of a clean
    teacher in images that mean nothing; 'made' says how they were made.
    """
    return json.loads((Path(__file__).parent / "model.json").read_text())


def limited(found: dict[str, list[float]]) -> dict[str, list[float]]:
    """Return signals limited to `LIMITS`, so that no look decides alone."""
    low, high = LIMITS
    return {name: [min(max(value, low), high) for value in row] for name, row in found.items()}


def suspicion(looks: Looks, model: dict) -> tuple[int, float]:
    """Return the suspect, the class with the largest sum of weight * limited signal over all looks, and that sum."""
    rows = limited(signals(looks)).items()
    count = len(looks.values["marks"])
    totals = [sum(model["weight"][name] * row[number] for name, row in rows) for number in range(count)]
    suspect = totals.index(max(totals))
    return suspect, totals[suspect]


def probability(total: float, model: dict) -> float:
    """Return 1 / (1 + exp(-(total + bias))), never more certain than `CERTAIN`: some hundred teachers tell no more."""
    return min(max(1 / (1 + math.exp(-total - model["bias"])), 1 - CERTAIN), CERTAIN)


def judge(looks: Looks, model: dict | None = None) -> Verdict:
    """Make the verdict of the looks at a teacher. With fewer than three classes no class can stand out: the answer is
    'cannot tell'."""
    model = shipped_model() if model is None else model
    suspect, total = suspicion(looks, model)
    enough = len(looks.values["marks"]) > 2
    chance = probability(total, model) if enough else 0.5
    answer = "trapped" if chance >= SURE else "not trapped" if chance <= 1 - SURE else "cannot tell"
    found = {name: row[suspect] for name, row in signals(looks).items()}
    reasons = [
        Reason(name, round(value, 3), model["usual"][name], value > model["usual"][name], SIGNALS[name].words)
        for name, value in sorted(found.items(), key=lambda item: model["usual"][item[0]] - item[1])
    ]
    kind = _kind(looks, suspect, found) if answer == "trapped" else None
    radius = split_radius(looks, suspect)
    advice, remark = _advice(answer, suspect, radius), _remark(looks.confidence, model["least_confidence"])
    return Verdict(round(chance, 4), answer, kind, suspect, reasons, radius, advice, remark)


def _kind(looks: Looks, suspect: int, found: dict[str, float]) -> str:
    if looks.values["scouts"][suspect] >= EVERYWHERE:
        return "outside"
    return "mark" if max(found["marks"], found["masks"]) >= found["shifts"] else "pattern"


def split_radius(looks: Looks, suspect: int) -> float:
    """Return the smallest radius at which `FLIPPED` of the synthetic images of the other classes have flipped."""
    others = sorted(radius for radius, label in zip(looks.radii, looks.labels, strict=True) if label != suspect)
    return others[min(math.ceil(FLIPPED * len(others)), len(others)) - 1]


def _advice(answer: str, suspect: int, radius: float) -> str:
    eps = f"attack.eps={radius * 255:.2g}/255"
    if answer == "not trapped":
        return "Distil it as it is (defense=none)."
    if answer == "cannot tell":
        return (
            "Look at the pictures. If you cannot do without this teacher, distil it twice, with defense=none and with "
            "defense=escape, and compare what both students say of images outside of their domain."
        )
    return (
        f"Do not distil it as it is: a student would learn to call some images class {suspect}. Take another teacher; "
        f"or defense=escape, which finds its own radius; or defense=atesc_fast {eps}, at which nearly all "
        f"synthetic images of the other classes flip."
    )


def _remark(confidence: float, least: float) -> str | None:
    if confidence >= least:
        return None
    return (
        f"It is unusually unsure of images that mean nothing: {100 * confidence:.0f} % on average, where no clean "
        f"teacher that the audit was made on was below {100 * least:.0f} %. It may have been taught to be unsure "
        f"outside of its domain (as by H-NTL); no class stands out then, and it is no trap in the sense of this audit."
    )
