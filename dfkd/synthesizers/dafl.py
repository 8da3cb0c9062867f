"""DAFL: data-free learning of student networks (Chen et al., ICCV 2019, arXiv 1904.01186).

Needs the teacher's outputs, input gradients and penultimate features (prior `activation`). Its generator does not use
the student, which is trained at the same time.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from dfkd.priors import TeacherPass
from dfkd.synthesizers.base import Steer
from dfkd.synthesizers.generative import Generative, term_weights


class DAFL(Generative):
    """A generator that is trained against the teacher alone.

        one_hot * CE(t, y) + sum of the weighted priors (balance and activation)

    y is argmax t, or the label given to a conditional generator. There is no adversarial term, so a defense cannot
    steer it. No term demands variety within a class; conditional generators are the first to lose it.

    Args:
        one_hot: weight of the term, at least 0.
        args, kwargs: arguments of `Generative`.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(self, *args: Any, one_hot: float = 1.0, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.weights = term_weights(one_hot=one_hot)

    def terms(
        self, images: Tensor, labels: Tensor, teacher_pass: TeacherPass, student: nn.Module, steer: Steer | None
    ) -> dict[str, Tensor]:
        weight = self.weights["one_hot"]
        return {"one_hot": weight * F.cross_entropy(teacher_pass.logits, labels)} if weight > 0 else {}
