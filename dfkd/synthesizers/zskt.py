"""ZSKT: zero-shot knowledge transfer by adversarial belief matching (Micaelli, Storkey, NeurIPS 2019, 1905.09768).

In the form of CMI's benchmark. Needs the teacher's outputs and input gradients. Looks at the student.
"""

from typing import Any

from torch import Tensor, nn

from dfkd.priors import View
from dfkd.synthesizers.adversarial import adversarial_term
from dfkd.synthesizers.base import Steer
from dfkd.synthesizers.generative import Generative, term_weights


class ZSKT(Generative):
    """A generator that only seeks where teacher and student disagree in KL.

        adversarial * adversarial_term + sum of the weighted priors (none in the paper)

    Args:
        adversarial: weight of the term.
        args, kwargs: the arguments of `Generative`.

    Raises:
        ValueError: a number out of range.
    """

    def __init__(self, *args: Any, adversarial: float = 1.0, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.weights = term_weights(adversarial=adversarial)

    def terms(
        self, images: Tensor, labels: Tensor, view: View, student: nn.Module, steer: Steer | None
    ) -> dict[str, Tensor]:
        weight = self.weights["adversarial"]
        if weight == 0:
            return {}
        return {"adversarial": weight * adversarial_term(*self.against(student, images, view, steer))}
