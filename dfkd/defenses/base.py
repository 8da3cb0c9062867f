"""What a defense may do to a distillation: split the pool, shape the loss, steer the synthesis."""

import torch
from torch import Tensor

from dfkd.models import Teacher
from dfkd.pool import Split
from dfkd.synthesizers.base import Steer


class Defense:
    """Does nothing: every image is distilled (`defense=none`)."""

    def split(self, teacher: Teacher, images: Tensor, logits: Tensor, generator: torch.Generator) -> Split:
        """Tell ID-like (fragile) images from OOD-like (robust) ones.

        Args:
            images: (B, C, H, W), float.
            logits: the teacher's answers to them (B, classes).
            generator: the only source of randomness.
        """
        return Split.everything(images)

    def loss(
        self, student_logits: Tensor, teacher_logits: Tensor, divergence: Tensor, fragile: Tensor
    ) -> dict[str, Tensor]:
        """Terms of the student's loss, each a scalar; their sum is minimised.

        Args:
            student_logits, teacher_logits: (B, C).
            divergence: the distillation loss of every image (B,).
            fragile: (B,), bool.
        """
        return {"kd": divergence.mean()}

    def steer(self, teacher: Teacher, generator: torch.Generator) -> Steer | None:
        """Weights of a generator's adversarial term per image, or None to leave the synthesis alone."""
        return None

    def warnings(self) -> list[str]:
        """Reasons not to trust the splits made so far."""
        return []
