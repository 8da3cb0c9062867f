"""Total variation in three common forms, whose usual weights differ by orders of magnitude."""

from torch import Tensor

from dfkd.priors.base import PriorTerm, TeacherPass


class TotalVariation(PriorTerm):
    """Anisotropic total variation as CAKE computes it (arXiv 2306.02090): the mean difference of neighbouring pixels.

        mean_{n, c} [ mean |x[i+1, j] - x[i, j]| + mean |x[i, j+1] - x[i, j]| ]

    in the teacher's normalised space.
    """

    needs_neighbours = True

    def __call__(self, teacher_pass: TeacherPass) -> Tensor:
        x = teacher_pass.inputs
        return _mean_size(teacher_pass.sets, x.diff(dim=2), x.diff(dim=3))


class DiagonalTotalVariation(PriorTerm):
    """Total variation of CMI's benchmark (arXiv 2105.08584), which includes neighbours along both diagonals.

    TotalVariation + mean_{n, c} [ mean |x[i+1, j+1] - x[i, j]| + mean |x[i+1, j] - x[i, j+1]| ]
    """

    needs_neighbours = True

    def __call__(self, teacher_pass: TeacherPass) -> Tensor:
        return _mean_size(teacher_pass.sets, *_differences(teacher_pass.inputs))


class TotalVariationL2(PriorTerm):
    """Total variation of DeepInversion (arXiv 1912.08795): the Euclidean norm of all differences of a set.

        sum over the four directions of ( sum_{n, c, i, j} |x[neighbour] - x[i, j]|^2 )^(1/2)

    It is not averaged, so it grows with the square root of the number of images in the set and of their pixels.
    """

    needs_neighbours = True

    def __call__(self, teacher_pass: TeacherPass) -> Tensor:
        return sum(d.reshape(teacher_pass.sets, -1).norm(dim=1) for d in _differences(teacher_pass.inputs))


def _differences(x: Tensor) -> tuple[Tensor, ...]:
    """Differences of images (N, C, H, W) along rows, columns and both diagonals."""
    down, across = x.diff(dim=2), x.diff(dim=3)
    return down, across, x[:, :, 1:, 1:] - x[:, :, :-1, :-1], x[:, :, 1:, :-1] - x[:, :, :-1, 1:]


def _mean_size(sets: int, *differences: Tensor) -> Tensor:
    """Sum over the directions of the mean absolute difference, for every set (S,)."""
    # An image one pixel wide has no neighbours in that direction; max(..., 1) avoids 0 / 0.
    per_image = sum(d.abs().flatten(1).sum(1) / max(d[0].numel(), 1) for d in differences)
    return per_image.view(sets, -1).mean(1)
