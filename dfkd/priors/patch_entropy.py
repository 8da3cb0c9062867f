"""A prior for vision transformers: the patches of an image should differ from each other in many degrees."""

import math

import torch
from torch import Tensor

from dfkd.priors.base import PriorTerm, TeacherPass

FLOOR = 1e-4  # is added to a density before its logarithm is taken


class PatchEntropy(PriorTerm):
    """Negative differential entropy of patch similarity (PSAQ-ViT, Li et al., ECCV 2022, arXiv 2203.02250).

        sum over self-attention layers of  mean_n  integral f log f

    f is the Gaussian kernel density estimate of the cosine similarities of all pairs of patches of image n, by what the
    layer makes of them. Similarities in real images vary more than those in noise, so the term is low for images with a
    foreground and a background. As in the public code, the integral is the trapezoidal rule on a few points between the
    smallest and the largest similarity of the set, and the points are constants for the gradient.

    Args:
        weight: factor of the term; 1 in the public code.
        bandwidth: standard deviation of the kernel, above 0.
        points: number of points of the integral, at least 2.

    Raises:
        ValueError: bandwidth or points is out of its range.
    """

    needs_patches = True

    def __init__(self, weight: float = 1.0, bandwidth: float = 0.01, points: int = 10):
        super().__init__(weight)
        if bandwidth <= 0:
            raise ValueError(f"bandwidth must be positive, got {bandwidth}")
        if points < 2:
            raise ValueError(f"points must be at least 2, got {points}")
        self.bandwidth, self.points = bandwidth, points

    def __call__(self, teacher_pass: TeacherPass) -> Tensor:
        return -sum(self._entropy(patches, teacher_pass.sets) for patches in teacher_pass.patches)

    def _entropy(self, patches: Tensor, sets: int) -> Tensor:
        """Return the mean entropy of every set (S,) by the patches (S * N, P, D) of one layer."""
        unit = torch.nn.functional.normalize(patches, dim=2)
        similarity = (unit @ unit.transpose(1, 2)).reshape(sets, -1, patches.shape[1] ** 2)  # (S, N, P * P)
        low, high = similarity.detach().flatten(1).aminmax(dim=1, keepdim=True)
        grid = low + (high - low) * torch.linspace(0, 1, self.points, device=low.device)  # (S, points)
        apart = grid[:, None, :, None] - similarity[:, :, None]
        density = (-0.5 * (apart / self.bandwidth).square()).exp().mean(3) / (self.bandwidth * math.sqrt(2 * math.pi))
        density = density + FLOOR
        return torch.trapezoid(-density * density.log(), grid[:, None], dim=2).mean(1)
