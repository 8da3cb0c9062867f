"""The input of a metric: a model's logits on a split, with labels and the teacher's logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Answers:
    """A model's logits for the images of one domain, with the labels and the teacher's logits.

    Attributes:
        images: `dfkd.domains.Images`; `images.pixels()` are float (N, C, H, W) in [0, 1].
        logits: the model's logits (N, classes) in evaluation mode, float32, on the CPU.
        ask_teacher: () -> the teacher's logits; computed at the first call.
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
        """The labels that the model predicts (N,)."""
        return self.logits.argmax(1)

    @property
    def teacher_logits(self) -> Tensor:
        """The teacher's logits (N, classes), float32, on the CPU."""
        return self.ask_teacher()

    @property
    def teacher_answer(self) -> Tensor:
        """The labels that the teacher predicts (N,)."""
        return self.teacher_logits.argmax(1)


@dataclass(frozen=True)
class Exam:
    """One model, a student or the teacher itself, evaluated on one split of a scenario's domains.

    Attributes:
        model: `dfkd.models.Classifier`; call `model.predict(images)`, because the model may be in training mode.
        teacher: `dfkd.models.Teacher`.
        scenario: `dfkd.scenarios.Scenario`.
        runtime: `dfkd.machine.runtime.Runtime`, with the device and the number of images per forward pass.
        split: 'val' or 'test'.
        id: logits for the images of the ID domain.
        ood: logits for the images of the OOD domain, or None if the scenario has none.
    """

    model: Any
    teacher: Any
    scenario: Any
    runtime: Any
    split: str
    id: Answers
    ood: Answers | None
