"""What a metric is computed from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Answers:
    """What a model says of the images of one domain, beside their labels and the teacher.

    Attributes:
        images: `dfkd.domains.Images`; `images.pixels()` are float (N, C, H, W) in [0, 1].
        logits: the model's, (N, classes), float32, on the CPU, in evaluation mode.
        ask_teacher: gives the teacher's logits; they are computed when they are first asked for.
    """

    images: Any
    logits: Tensor
    ask_teacher: Callable[[], Tensor]

    @property
    def labels(self) -> Tensor:
        """The true labels (N,)."""
        return self.images.y

    @property
    def answer(self) -> Tensor:
        """The model's labels (N,)."""
        return self.logits.argmax(1)

    @property
    def teacher_logits(self) -> Tensor:
        """The teacher's logits (N, classes), float32, on the CPU."""
        return self.ask_teacher()

    @property
    def teacher_answer(self) -> Tensor:
        """The teacher's labels (N,)."""
        return self.teacher_logits.argmax(1)


@dataclass(frozen=True)
class Exam:
    """One model, a student or the teacher itself, on one split of a scenario's domains.

    Attributes:
        model: `dfkd.models.Classifier`; ask it by `model.predict(images)`, for it may be in training mode.
        teacher: `dfkd.models.Teacher`.
        scenario: `dfkd.scenarios.Scenario`.
        runtime: `dfkd.machine.runtime.Runtime`: the device, and how many images go through a network at once.
        split: 'val' or 'test'.
        id: answers to the images of the ID domain.
        ood: the same of the OOD domain, or None where the scenario has none.
    """

    model: Any
    teacher: Any
    scenario: Any
    runtime: Any
    split: str
    id: Answers
    ood: Answers | None
