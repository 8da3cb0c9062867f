"""All looks at one teacher, without any data: what the verdict is founded on."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dfkd.attacks import PGD, flip_radius
from dfkd.audit.carriers import universal_marks, universal_shifts
from dfkd.audit.last_layer import sum_of_weights
from dfkd.audit.margins import largest_margins
from dfkd.audit.masks import smallest_masks
from dfkd.audit.scouting import answers_to_scouts
from dfkd.audit.synthetic import invert
from dfkd.machine.runtime import Runtime
from dfkd.models import Teacher

# The names of the looks, in their order; all but the first have a value for every class.
LOOKS = ("images", "flips", "margins", "scouts", "shifts", "marks", "masks", "last_layer")

CARRIED = 80  # largest number of images on which changes are measured: the cost grows with their number times classes
MOST = 100  # largest number of classes
STARTS = 3  # random images a class from which the largest margin is sought
LARGEST_RADIUS = 1.0  # a flip radius says no more from here on: any image of [0, 1] lies that near
SHOWN = 16  # scouts on the page


@dataclass(frozen=True)
class Effort:
    """How much is spent on a teacher.

    Args:
        images: synthetic images of every class.
        steps: steps of the inversion, of the largest margins and of the smallest masks.
        carrier_steps: steps of the universal shifts and marks.
        attack_steps: steps of an attack.
        batch: images a class in every step of masks, shifts and marks.
        scouts: number of images that mean nothing.
        eps: largest change of a pixel by a universal shift.
        share: share of the pixels that universal marks change.

    Raises:
        ValueError: a number is out of range.
    """

    images: int = 8
    steps: int = 60
    carrier_steps: int = 20
    attack_steps: int = 5
    batch: int = 14
    scouts: int = 120
    eps: float = 32 / 255
    share: float = 0.02

    def __post_init__(self):
        for name in ("images", "steps", "carrier_steps", "attack_steps", "batch", "scouts"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        for name in ("eps", "share"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in (0, 1], got {getattr(self, name)!r}")


@dataclass(frozen=True)
class Looks:
    """What was seen.

    Attributes:
        values: {name of a look: a number of every class}, in the units of that look.
        scale: median margin of the teacher's answers to synthetic images, in logits: the unit of its margins.
        hit: share of the synthetic images that have the class for which they were made, in [0, 1].
        radii: flip radius of every synthetic image (`dfkd.attacks.flip_radius`), on the images' scale.
        labels: the class for which it was made.
        seconds: seconds of every look.
        pictures: tensors for the page, by name.
    """

    values: dict[str, list[float]]
    scale: float
    hit: float
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
    report: Callable[[str], None] = lambda name: None,
) -> Looks:
    """Look at a teacher from all sides.

    Args:
        report: called with the name of each look after it.
    """
    seconds: dict[str, float] = {}

    @contextmanager
    def one(name: str) -> Iterator[torch.Generator]:
        began = time.monotonic()
        yield runtime.generator(seed, "audit", name)
        seconds[name] = round(time.monotonic() - began, 3)
        report(name)

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
    few = made.first(CARRIED)
    with one("shifts") as stream:
        shifts = universal_shifts(teacher, few, effort.eps, effort.carrier_steps, effort.batch, stream)
    with one("marks") as stream:
        marks = universal_marks(teacher, few, effort.share, effort.carrier_steps, effort.batch, stream)
    with one("masks") as stream:
        masks = smallest_masks(teacher, few, effort.steps, effort.batch, stream)
    with one("last_layer"):
        weights = sum_of_weights(teacher)
    values = {
        "flips": by_class(radii.log2(), made.labels, teacher.classes),
        "margins": margins,
        "scouts": answers.firm,
        "shifts": shifts.gain,
        "shift_success": shifts.success,
        "marks": marks.gain,
        "mark_success": marks.success,
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
    top = teacher.predict(made.images).float().topk(2, 1).values
    return Looks(
        values={name: [round(v, 5) for v in value.tolist()] for name, value in values.items()},
        scale=(top[:, 0] - top[:, 1]).median().item(),
        hit=made.hit,
        radii=[round(radius, 5) for radius in radii.tolist()],
        labels=made.labels.tolist(),
        seconds=seconds,
        pictures={name: value.detach().float().cpu().contiguous() for name, value in pictures.items()},
    )


def by_class(values: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Return the mean of values (N,) over the images of each class (classes,)."""
    return torch.stack([values[labels == number].mean() for number in range(classes)])
