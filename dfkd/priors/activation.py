"""A prior that rewards large penultimate features."""

from torch import Tensor

from dfkd.priors.base import PriorTerm, TeacherPass


class Activation(PriorTerm):
    """The activation loss of DAFL (arXiv 1904.01186): real images activate the teacher's features most.

        - mean_{n, d} |f_nd|,   f the penultimate features

    The mean is over images and features, so that the scale does not depend on the network's width.
    """

    needs_features = True

    def __call__(self, teacher_pass: TeacherPass) -> Tensor:
        return -teacher_pass.features.abs().reshape(teacher_pass.sets, -1).mean(1)
