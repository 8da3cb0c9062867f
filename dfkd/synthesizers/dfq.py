"""DFQ: data-free quantisation's adversarial generator as a distillation method (Choi et al., CVPRW 2020, 2005.04136).

The form is that of CMI's benchmark. Needs the teacher's outputs and input gradients, and its BatchNorm statistics if
the BN prior is on (the default). Uses the student.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from dfkd.priors import TeacherPass
from dfkd.synthesizers.adversarial import adversarial_term
from dfkd.synthesizers.base import Steer
from dfkd.synthesizers.generative import Generative, term_weights


class DFQ(Generative):
    """A generator trained against the student.

        one_hot * CE(t, y) + adversarial * adversarial_term + sum of the weighted priors (BN 1, balance 20)

    y is argmax t, or the label given to a conditional generator.

    Args:
        one_hot, adversarial: weights of the two terms, at least 0.
        args, kwargs: arguments of `Generative`.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(self, *args: Any, one_hot: float = 1.0, adversarial: float = 1.0, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.weights = term_weights(one_hot=one_hot, adversarial=adversarial)

    def terms(
        self, images: Tensor, labels: Tensor, teacher_pass: TeacherPass, student: nn.Module, steer: Steer | None
    ) -> dict[str, Tensor]:
        terms, weights = {}, self.weights
        if weights["one_hot"] > 0:
            terms["one_hot"] = weights["one_hot"] * F.cross_entropy(teacher_pass.logits, labels)
        if weights["adversarial"] > 0:
            pair = self.adversarial_inputs(student, images, teacher_pass, steer)
            terms["adversarial"] = weights["adversarial"] * adversarial_term(*pair)
        return terms
