"""MAD: momentum adversarial distillation (Do et al., NeurIPS 2022, arXiv 2209.10359).

Needs the teacher's outputs and input gradients, and its BatchNorm statistics if the BN prior is on (the default).
Looks at the student.
"""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from dfkd.models import Teacher
from dfkd.priors import View
from dfkd.synthesizers.base import Steer
from dfkd.synthesizers.dfq import DFQ


@torch.no_grad()
def follow(copy: nn.Module, module: nn.Module, decay: float) -> None:
    """copy <- decay * copy + (1 - decay) * module, for every parameter and floating buffer; counters are copied."""
    for old, new in zip(copy.state_dict().values(), module.state_dict().values(), strict=True):
        if old.is_floating_point():
            old.lerp_(new, 1 - decay)
        else:
            old.copy_(new)


class MAD(DFQ):
    """DFQ's generator with an exponential moving average beside it; the student trains on images of both.

    The generator chases the student, and its images of some rounds ago are soon out of reach; the slow copy still
    makes them, so that the student does not forget what it learned there.

    Args:
        decay: of the average, a generator step.
        share: of a round's images that the average makes, rounded down.
        args, kwargs: the arguments of `DFQ`.

    Raises:
        ValueError: a number out of range.
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
    ) -> tuple[dict[str, Tensor], View]:
        terms, view = super()._step(z, labels, teacher, student, steer)
        follow(self.average, self.generator, self.decay)
        return terms, view

    def _fresh(self, stream: torch.Generator) -> Tensor:
        slow = int(self.share * self.images)
        pairs = ((self.generator, self.images - slow), (self.average, slow))
        return torch.cat([self._draw(generator, count, stream) for generator, count in pairs if count > 0])
