"""All looks at one teacher, without any data: what the verdict is founded on."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dfkd.attacks import PGD, flip_radius
from dfkd.audit.effort import CARRIED, STARTS, Effort
from dfkd.audit.last_layer import sum_of_weights
from dfkd.audit.margins import largest_margins
from dfkd.audit.scouting import answers_to_scouts
from dfkd.audit.synthetic import invert
from dfkd.carriers import Search, smallest_marks, smallest_masks, smallest_shifts
from dfkd.machine.runtime import Runtime
from dfkd.models import Teacher

# The names of the looks, in their order; all but the first have a value for every class.
LOOKS = ("images", "flips", "margins", "scouts", "shifts", "marks", "masks", "last_layer")

MOST = 100  # largest number of classes
LARGEST_RADIUS = 1.0  # a flip radius says no more from here on: any image of [0, 1] lies that near
SHOWN = 16  # scouts on the page


@dataclass(frozen=True)
class Looks:
    """What was seen.

    Attributes:
        values: {name of a look: a number of every class}, in the units of that look.
        confidence: mean of the largest probability in the answers to images that mean nothing, in [0, 1].
        hit: share of the synthetic images that have the class for which they were made, in [0, 1].
        radii: flip radius of every synthetic image (`dfkd.attacks.flip_radius`), on the images' scale.
        labels: the class for which it was made.
        seconds: seconds of every look.
        pictures: tensors for the page, by name.
    """

    values: dict[str, list[float]]
    hit: float
    confidence: float
    radii: list[float]
    labels: list[int]
    seconds: dict[str, float] = field(default_factory=dict)
    pictures: dict[str, Tensor] = field(default_factory=dict)

    def to_json(self) -> dict:
        """Everything but the pictures, as JSON values."""
        return {key: value for key, value in vars(self).items() if key != "pictures"}


def why_not(classes: int, has_pixels: bool = True) -> str | None:
    """Return the reason why a teacher cannot be audited; None if it can.

    Args:
        has_pixels: whether it classifies images.
    """
    if not has_pixels:
        return "the audit paints images, and this is a teacher of something else"
    if classes > MOST:
        return f"the audit compares every class with every other one, for at most {MOST} classes; there are {classes}"
    return None


def look(
    teacher: Teacher,
    runtime: Runtime,
    seed: int,
    effort: Effort,
    report: Callable[[str, float], None] = lambda name, seconds: None,
) -> Looks:
    """Look at a teacher from all sides.

    Args:
        effort: the largest one; less is spent on a teacher for which it would exceed `dfkd.audit.effort.BUDGET`.
        report: called after each look with its name and its seconds.
    """
    effort = effort.for_teacher(teacher)
    seconds: dict[str, float] = {}

    @contextmanager
    def one(name: str) -> Iterator[torch.Generator]:
        began = time.monotonic()
        yield runtime.generator(seed, "audit", name)
        seconds[name] = round(time.monotonic() - began, 3)
        report(name, seconds[name])

    with one("images"):
        made = invert(teacher, runtime, seed, effort.images, effort.steps)
    with one("flips") as stream:
        attack = PGD(eps=LARGEST_RADIUS, steps=effort.attack_steps, loss="margin")
        logits = teacher.predict(made.images)
        radii = flip_radius(attack, teacher, made.images, logits, stream, high=LARGEST_RADIUS)
    with one("margins") as stream:
        margins = largest_margins(teacher, STARTS, effort.steps, stream)
    with one("scouts") as stream:
        answers = answers_to_scouts(teacher, effort.scouts, effort.attack_steps, stream)
    everyone = torch.arange(teacher.classes, device=made.images.device)
    few = (teacher,), made.images[:CARRIED], made.answers[:CARRIED], everyone, effort.batch
    with one("shifts") as stream:
        shifts = smallest_shifts(Search(*few, stream), effort.carrier_steps)
    with one("marks") as stream:
        marks = smallest_marks(Search(*few, stream), effort.carrier_steps)
    with one("masks") as stream:
        masks = smallest_masks(Search(*few, stream), effort.steps)
    with one("last_layer"):
        weights = sum_of_weights(teacher)
    values = {
        "flips": by_class(radii.log2(), made.labels, teacher.classes),
        "margins": margins,
        "scouts": answers.firm,
        "shifts": shifts.size,
        "marks": marks.size,
        "masks": masks.size,
        "last_layer": weights,
    }
    pictures = {
        "images": made.images,
        "scouts": answers.images[:: max(1, effort.scouts // SHOWN)][:SHOWN],
        "confidence": answers.confidence,
        "shift": shifts.change,
        "mark": marks.change,
        "mask": masks.mask,
        "pattern": masks.pattern,
    }
    return Looks(
        values={name: [round(v, 5) for v in value.tolist()] for name, value in values.items()},
        hit=made.hit,
        confidence=answers.confidence.mean().item(),
        radii=[round(radius, 5) for radius in radii.tolist()],
        labels=made.labels.tolist(),
        seconds=seconds,
        pictures={name: value.detach().float().cpu().contiguous() for name, value in pictures.items()},
    )


def by_class(values: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Return the mean of values (N,) over the images of each class (classes,)."""
    return torch.stack([values[labels == number].mean() for number in range(classes)])
