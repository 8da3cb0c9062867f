"""Control experiments: noise images as the lower bound, and real images as the upper bound."""

import torch
from torch import nn

from dfkd.domains import Images
from dfkd.models import Teacher
from dfkd.synthesizers.base import Steer, Synthesizer, Synthetic


class NoiseImages(Synthesizer):
    """Gaussian images, N(0, 1) in the teacher's normalised space: the result without any synthesis.

    Args:
        shape: (C, H, W).
        rounds: number of rounds.
        batch_size: images per round.
    """

    independent = True

    def __init__(self, shape: tuple[int, int, int], rounds: int, batch_size: int):
        super().__init__(rounds)
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.shape, self.batch_size = shape, batch_size

    def synthesize(
        self, rounds: range, teacher: Teacher, student: nn.Module | None = None, steer: Steer | None = None
    ) -> Synthetic:
        size = (self.batch_size, *self.shape)
        noise = [torch.randn(size, generator=self.stream(r), device=self.runtime.device) for r in rounds]
        return Synthetic(teacher.denormalize(torch.cat(noise)))


class RealImages(Synthesizer):
    """The original ID training images: classical knowledge distillation, the upper bound. Not data-free.

    Args:
        real: the training images of the ID domain.
    """

    def __init__(self, real: Images):
        super().__init__(rounds=1)
        self.real = real

    def synthesize(
        self, rounds: range, teacher: Teacher, student: nn.Module | None = None, steer: Steer | None = None
    ) -> Synthetic:
        return Synthetic(self.real.x.to(self.runtime.device))
