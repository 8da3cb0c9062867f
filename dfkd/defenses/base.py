"""What a defense may do to a distillation: split the pool, shape the loss, act on the synthesis, finish the student."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dfkd.models import Classifier, Teacher
from dfkd.pool import Pool, Split
from dfkd.resume.loop import Loop, plain
from dfkd.synthesizers.base import Steer, SynthesisTerm, Synthesizer


class Defense:
    """Does nothing: every image is distilled (`defense=none`)."""

    @property
    def uses_real_data(self) -> bool:
        """Whether its splits depend on the scenario's own images: a diagnosis, no data-free method."""
        return False

    @property
    def radius(self) -> float | None:
        """Radius of the attack that splits, on the images' scale; None where no attack does."""
        return None

    @property
    def mean_loss(self) -> bool:
        """Whether every term of `loss` is a mean over the images of a batch, each by itself: several ranks can then
        share a batch."""
        return type(self).loss is Defense.loss

    def check(self, network: nn.Module, synthesizer: Synthesizer) -> None:
        """Raise ValueError if it cannot work with the teacher's network or the synthesizer; called before any work."""

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

    def synthesis_term(self, teacher: Teacher, generator: torch.Generator) -> SynthesisTerm | None:
        """A further term of a generator's loss, or None. Only synthesizers that take one get it (`takes_term`)."""
        return None

    def finish(
        self,
        student: Classifier,
        teacher: Teacher,
        pool: Pool,
        loss: Callable[[Tensor, Tensor], Tensor],
        generator: torch.Generator,
        loop: Loop = plain,
    ) -> dict[str, float]:
        """Go on training the student after the last round.

        Args:
            pool: what the student was distilled from, as far as it was kept.
            loss: the distillation loss of every image: (student logits, teacher logits) -> (B,); one that compares
                features gives its term of the logits.
            generator: the only source of randomness.
            loop: hands out the numbers of a long loop, between which a run can be stopped.

        Returns:
            what was measured; nothing if nothing was done.

        Raises:
            NonFiniteLoss: a loss became NaN or infinite.
        """
        return {}

    def warnings(self) -> list[str]:
        """Reasons not to trust the splits made so far."""
        return []
