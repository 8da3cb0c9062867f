"""DFAD: data-free adversarial distillation (Fang et al., 2019, arXiv 1912.11006).

Needs the teacher's outputs and input gradients. Uses the student.
"""

from typing import Any

from torch import Tensor, nn

from dfkd.priors import TeacherPass
from dfkd.synthesizers.adversarial import adversarial_l1
from dfkd.synthesizers.base import Steer
from dfkd.synthesizers.generative import Generative, term_weights


class DFAD(Generative):
    """A generator that seeks only the disagreement of teacher and student, measured by the L1 distance of their logits.

        adversarial * adversarial_l1 + sum of the weighted priors (none in the paper)

    Args:
        adversarial: weight of the term, at least 0.
        args, kwargs: arguments of `Generative`.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(self, *args: Any, adversarial: float = 1.0, betas: tuple[float, float] = (0.9, 0.999), **kwargs: Any):
        super().__init__(*args, betas=betas, **kwargs)
        self.weights = term_weights(adversarial=adversarial)

    def terms(
        self, images: Tensor, labels: Tensor, teacher_pass: TeacherPass, student: nn.Module, steer: Steer | None
    ) -> dict[str, Tensor]:
        weight = self.weights["adversarial"]
        if weight == 0:
            return {}
        return {"adversarial": weight * adversarial_l1(*self.adversarial_inputs(student, images, teacher_pass, steer))}
