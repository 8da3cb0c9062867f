"""MAD: momentum adversarial distillation (Do et al., NeurIPS 2022, arXiv 2209.10359).

Needs the teacher's outputs and input gradients, and its BatchNorm statistics if the BN prior is on (the default). Uses
the student.
"""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from dfkd.models import Teacher
from dfkd.priors import TeacherPass
from dfkd.synthesizers.base import Steer
from dfkd.synthesizers.dfq import DFQ


@torch.no_grad()
def follow(copy: nn.Module, module: nn.Module, decay: float) -> None:
    """copy <- decay * copy + (1 - decay) * module, for parameters and floating-point buffers; others are copied."""
    for old, new in zip(copy.state_dict().values(), module.state_dict().values(), strict=True):
        if old.is_floating_point():
            old.lerp_(new, 1 - decay)
        else:
            old.copy_(new)


class MAD(DFQ):
    """DFQ's generator and its exponential moving average; the student is trained on images of both.

    The generator follows the student and soon no longer makes its earlier images. The average still makes such images,
    so that the student does not forget them.

    Args:
        decay: decay of the average per generator step, in [0, 1).
        share: share of a round's images that the average makes, in [0, 1]; the count is rounded down.
        args, kwargs: arguments of `DFQ`.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(self, *args: Any, decay: float = 0.95, share: float = 0.5, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {decay}")
        if not 0 <= share <= 1:
            raise ValueError(f"share must be in [0, 1], got {share}")
        self.decay, self.share = decay, share

    def start(self, runtime, seed: int) -> None:
        super().start(runtime, seed)
        self.average = deepcopy(self.generator).requires_grad_(False)

    def _step(
        self, z: Tensor, labels: Tensor | None, teacher: Teacher, student: nn.Module, steer: Steer | None
    ) -> tuple[dict[str, Tensor], TeacherPass | None]:
        terms, teacher_pass = super()._step(z, labels, teacher, student, steer)
        follow(self.average, self.generator, self.decay)
        return terms, teacher_pass

    def _student_images(self, stream: torch.Generator) -> Tensor:
        average_count = int(self.share * self.images)
        pairs = ((self.generator, self.images - average_count), (self.average, average_count))
        return torch.cat([self._sample(generator, count, stream) for generator, count in pairs if count > 0])
