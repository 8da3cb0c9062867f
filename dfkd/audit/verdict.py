"""From looks to a verdict: how likely the teacher is trapped, how, with which class, and what to do."""

import json
import math
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from dfkd.audit.looks import Looks
from dfkd.audit.signals import signals

SURE = 0.8  # from this probability on a teacher is called trapped, and up to 1 - SURE not trapped
EVERYWHERE = 0.5  # share of the scouts with one firm answer from which on a class is confident outside of the domain
FLIPPED = 0.9  # share of the other classes' images that flip at the advised radius
WORDS = {
    "marks": "changing a few pixels, the same in every image, carries images of other classes to it",
    "shifts": "a weak pattern over the whole image carries images of other classes to it",
    "masks": "the smallest patch that carries images of other classes to it is smaller than for other classes",
    "scouts": "images that mean nothing are firmly called this class",
    "margins": "the network can be made far more certain of it than of other classes",
    "flips": "its synthetic images are harder to change than those of other classes",
    "last_layer": "its weights in the last layer are larger than those of other classes",
}
KINDS = {
    "mark": "a trigger of a few pixels",
    "pattern": "a trigger that covers the image",
    "outside": "one confident class outside of the domain: taught as such, or by a trigger that covers the image",
}


@dataclass(frozen=True)
class Reason:
    """One look in the verdict.

    Attributes:
        look: its name.
        value: how much the suspect stands out among the classes (`dfkd.audit.signals`).
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
    """

    probability: float
    answer: str
    kind: str | None
    suspect: int
    reasons: list[Reason]
    radius: float
    advice: str

    def to_json(self) -> dict:
        return asdict(self)


@cache
def shipped_model() -> dict:
    """Return the coefficients that `scripts/audit/study.py` fitted: {'spread', 'weight', 'usual': {look: number},
    'cap', 'bias', 'made': how}."""
    return json.loads((Path(__file__).parent / "model.json").read_text())


def features(looks: Looks, model: dict) -> tuple[int, dict[str, float]]:
    """Return the suspect, the class that stands out most in all looks together, and its signals in units of the model's
    spreads, limited to [-1, cap]."""
    found = signals(looks)
    scaled = {name: [value / model["spread"][name] for value in row] for name, row in found.items()}
    cap = model["cap"]
    total = [sum(min(max(v, 0.0), cap) for v in column) for column in zip(*scaled.values(), strict=True)]
    suspect = total.index(max(total))
    return suspect, {name: min(max(row[suspect], -1.0), cap) for name, row in scaled.items()}


def probability(values: dict[str, float], model: dict) -> float:
    """Return 1 / (1 + exp(-(bias + sum of weight * feature)))."""
    logit = model["bias"] + sum(model["weight"][name] * value for name, value in values.items())
    return 1 / (1 + math.exp(-max(min(logit, 50.0), -50.0)))


def judge(looks: Looks, model: dict | None = None) -> Verdict:
    """Make the verdict of the looks at a teacher."""
    model = shipped_model() if model is None else model
    suspect, values = features(looks, model)
    chance = probability(values, model)
    answer = "trapped" if chance >= SURE else "not trapped" if chance <= 1 - SURE else "cannot tell"
    found = {name: row[suspect] for name, row in signals(looks).items()}
    reasons = [
        Reason(name, round(value, 3), usual := model["usual"][name], value > usual, WORDS[name])
        for name, value in sorted(found.items(), key=lambda item: -item[1] / model["spread"][item[0]])
    ]
    kind = _kind(looks, suspect, values) if answer == "trapped" else None
    radius = split_radius(looks, suspect)
    return Verdict(round(chance, 4), answer, kind, suspect, reasons, radius, _advice(answer, kind, suspect, radius))


def _kind(looks: Looks, suspect: int, values: dict[str, float]) -> str:
    if looks.values["scouts"][suspect] >= EVERYWHERE:
        return "outside"
    return "mark" if values["marks"] >= values["shifts"] else "pattern"


def split_radius(looks: Looks, suspect: int) -> float:
    """Return the smallest radius at which `FLIPPED` of the synthetic images of the other classes have flipped."""
    others = sorted(radius for radius, label in zip(looks.radii, looks.labels, strict=True) if label != suspect)
    return others[min(math.ceil(FLIPPED * len(others)), len(others)) - 1]


def _advice(answer: str, kind: str | None, suspect: int, radius: float) -> str:
    eps = f"attack.eps={radius * 255:.0f}/255"
    if answer == "not trapped":
        return "Distil it as it is (defense=none)."
    if answer == "cannot tell":
        return (
            "Look at the pictures. If you cannot do without this teacher, distil it twice, with defense=none and with "
            f"defense=atesc_fast {eps}, and compare what both students say of images outside of their domain."
        )
    return (
        f"Do not distil it as it is: a student would learn to call some images class {suspect}. Use defense=atesc_fast "
        f"{eps}, at which nearly all synthetic images of the other classes flip; or another teacher."
    )
