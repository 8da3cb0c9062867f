"""A prior that penalises the L2 norm of images."""

from torch import Tensor

from dfkd.priors.base import PriorTerm, TeacherPass


class L2(PriorTerm):
    """Mean Euclidean norm of the images in the teacher's normalised space (DeepInversion, arXiv 1912.08795)."""

    def __call__(self, teacher_pass: TeacherPass) -> Tensor:
        return teacher_pass.inputs.flatten(1).norm(dim=1).view(teacher_pass.sets, -1).mean(1)
