"""ZSKT: zero-shot knowledge transfer by adversarial belief matching (Micaelli, Storkey, NeurIPS 2019, 1905.09768).

The form is that of CMI's benchmark. Needs the teacher's outputs and input gradients. Uses the student.
"""

from typing import Any

from torch import Tensor, nn

from dfkd.priors import TeacherPass
from dfkd.synthesizers.adversarial import adversarial_term
from dfkd.synthesizers.base import Steer
from dfkd.synthesizers.generative import Generative, term_weights


class ZSKT(Generative):
    """A generator that seeks only the disagreement of teacher and student, measured by KL.

        adversarial * adversarial_term + sum of the weighted priors (none in the paper)

    Args:
        adversarial: weight of the term, at least 0.
        args, kwargs: arguments of `Generative`.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(self, *args: Any, adversarial: float = 1.0, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.weights = term_weights(adversarial=adversarial)

    def terms(
        self, images: Tensor, labels: Tensor, teacher_pass: TeacherPass, student: nn.Module, steer: Steer | None
    ) -> dict[str, Tensor]:
        weight = self.weights["adversarial"]
        if weight == 0:
            return {}
        return {
            "adversarial": weight * adversarial_term(*self.adversarial_inputs(student, images, teacher_pass, steer))
        }
