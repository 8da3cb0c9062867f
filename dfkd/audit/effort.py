"""How much an audit spends on a teacher."""

from dataclasses import dataclass, replace

import torch
from torch.utils.flop_counter import FlopCounterMode

from dfkd.models import Teacher

CARRIED = 80  # largest number of images on which changes are sought
STARTS = 3  # random images a class from which the largest margin is sought
# Floating-point operations from which on an audit spends less: five minutes of two CPU cores, and seconds of a GPU.
BUDGET = 2e13
LEAST = 0.5  # smallest share of every number


@dataclass(frozen=True)
class Effort:
    """Numbers of images and steps.

    Args:
        images: synthetic images of every class.
        steps: steps of the inversion, of the largest margins and of the smallest masks.
        carrier_steps: steps of the smallest shifts and marks.
        attack_steps: steps of an attack.
        batch: images a class in every step of masks, shifts and marks.
        scouts: number of images that mean nothing.

    Raises:
        ValueError: a number is out of range.
    """

    images: int = 8
    steps: int = 80
    carrier_steps: int = 50
    attack_steps: int = 5
    batch: int = 10
    scouts: int = 120

    def __post_init__(self):
        for name, value in vars(self).items():
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")

    def passes(self, classes: int) -> int:
        """Return about how many images the teacher is shown, of nearly all of which it gives a gradient."""
        made, batch = self.images * classes, min(self.batch, CARRIED, self.images * classes)
        attacks = 5 * made * (self.attack_steps + 1) + self.scouts * (self.attack_steps + 2)
        sought = classes * batch * (2 * self.carrier_steps + self.steps)
        return (made + STARTS * classes) * (self.steps + 1) + attacks + sought

    def for_teacher(self, teacher: Teacher) -> "Effort":
        """Return what is spent on this teacher: the same effort, or a smaller one where it would exceed `BUDGET`."""
        image = torch.zeros(1, *teacher.shape, device=teacher.mean.device)
        teacher.predict(image)  # the first pass folds BatchNorm layers, and tries whether that is right
        with FlopCounterMode(display=False) as counter:
            teacher.predict(image)
        return self.within(BUDGET, teacher.classes, counter.get_total_flops())

    def within(self, budget: float, classes: int, flops: float) -> "Effort":
        """Return the same effort, or a smaller one for a teacher that would cost more than the budget.

        The cost is proportional to products of two numbers, images and steps: both are multiplied with
        sqrt(budget / cost), but at most halved.

        Args:
            budget: floating-point operations.
            flops: those of a forward pass of one image; a gradient costs as many again.
        """
        share = budget / max(2 * flops * self.passes(classes), 1.0)
        if share >= 1:
            return self
        names = ("images", "steps", "carrier_steps", "batch", "scouts")
        return replace(self, **{name: max(1, round(max(share**0.5, LEAST) * getattr(self, name))) for name in names})
