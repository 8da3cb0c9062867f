"""ATEsc: adversarial trap escaping (Hong et al., ICML 2025, arXiv 2507.04119).

The paper's equations are not public. It says that images whose label flips under attack are ID-like and are distilled,
and that the others are OOD-like and are used for forgetting. The form of both losses here is our interpretation; every
choice is an option.
"""

import torch
from torch import Tensor, nn

from dfkd.defenses.base import Defense
from dfkd.defenses.criteria import Criterion
from dfkd.machine.runtime import Runtime
from dfkd.models import Teacher
from dfkd.pool import Split
from dfkd.synthesizers.base import Steer, Synthesizer


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of the values (B,) where the mask (B,) is true; 0 if it is true nowhere."""
    return torch.where(mask, values, torch.zeros_like(values)).sum() / mask.sum().clamp_min(1)


def masked_share(values: Tensor, mask: Tensor) -> Tensor:
    """Sum of the values (B,) where the mask (B,) is true, divided by B."""
    return torch.where(mask, values, torch.zeros_like(values)).mean()


def forget_kl(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """KL(softmax t || softmax s) of every image (B,), which forgetting maximises."""
    s, t = student_logits.log_softmax(1), teacher_logits.log_softmax(1)
    return (t.exp() * (t - s)).sum(1)


def forget_unlikelihood(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """-log(1 - p_s(y)), y = argmax t, of every image (B,), which forgetting minimises (arXiv 1908.04319).

    Unlike the maximised KL, its gradient is largest where the student agrees with the teacher, and vanishes where it
    disagrees.
    """
    label = teacher_logits.argmax(1, keepdim=True)
    others = student_logits.scatter(1, label, -torch.inf).logsumexp(1)
    return student_logits.logsumexp(1) - others


class ATEsc(Defense):
    """Calibrated distillation on the fragile images, forgetting on the robust ones.

        kd      1/B * sum_F D(t || s),  D the student's distillation loss, F fragile, R robust, B = |F| + |R|
        forget  'kl':            - min(clip, weight / B * sum_R KL(t || s))
                'unlikelihood':  weight / B * sum_R -log(1 - p_s(argmax t))
                'none':          nothing (calibrated distillation alone)

    With reduction='batch' every image has the same weight. If a share q of similar images is fragile, the student
    converges to p_s(argmax t) = q on them (unlikelihood, weight 1). Most ID images then keep the right label even if
    the split errs on some. With reduction='group' the sums are divided by |F| and |R| instead, as the paper reads
    literally; the term of an empty group is 0.

    Args:
        criterion: decides the split.
        forget: 'unlikelihood', 'kl' or 'none'.
        weight: weight (lambda) of the forgetting term, at least 0.
        clip: upper bound in the 'kl' form, as in NTL's loss; without it the training diverges.
        reduction: 'batch' (mean over the whole batch) or 'group' (mean over each group).
        steer: 'fragile' restricts a generator's adversarial term to fragile images. Otherwise the generator seeks
            the images on which forgetting makes the student disagree. 'none' does not restrict it, as in the paper.

    Raises:
        ValueError: an unknown value of a text option, or a negative weight or clip.
    """

    def __init__(
        self,
        criterion: Criterion,
        forget: str = "unlikelihood",
        weight: float = 1.0,
        clip: float = 1.0,
        reduction: str = "batch",
        steer: str = "fragile",
    ):
        if forget not in ("kl", "unlikelihood", "none"):
            raise ValueError(f"forget must be kl, unlikelihood or none, got '{forget}'")
        if reduction not in ("group", "batch"):
            raise ValueError(f"reduction must be group or batch, got '{reduction}'")
        if steer not in ("fragile", "none"):
            raise ValueError(f"steer must be fragile or none, got '{steer}'")
        if weight < 0 or clip < 0:
            raise ValueError(f"weight and clip must not be negative, got {weight} and {clip}")
        self.criterion, self.forget, self.weight, self.clip = criterion, forget, weight, clip
        self.masks_generator = steer == "fragile"
        self.reduce = masked_mean if reduction == "group" else masked_share

    @property
    def uses_real_data(self) -> bool:
        return self.criterion.uses_real_data

    @property
    def radius(self) -> float | None:
        return self.criterion.radius

    @property
    def mean_loss(self) -> bool:
        return self.reduce is masked_share and self.forget != "kl"  # 'kl' clips the mean, not each image's term

    @property
    def loss_is_pure(self) -> bool:
        return type(self).loss is ATEsc.loss

    def check(self, network: nn.Module, synthesizer: Synthesizer) -> None:
        self.criterion.check(network)

    def start(self, runtime: Runtime) -> None:
        self.criterion.start(runtime)

    def answer(self, teacher: Teacher, images: Tensor, chunk: int) -> Tensor:
        return self.criterion.answer(teacher, images, chunk)

    def split(self, teacher: Teacher, images: Tensor, logits: Tensor, generator: torch.Generator) -> Split:
        with teacher.counted_as("split"):
            return self.criterion.split(teacher, images, logits, generator)

    def loss(
        self, student_logits: Tensor, teacher_logits: Tensor, divergence: Tensor, fragile: Tensor
    ) -> dict[str, Tensor]:
        terms = {"kd": self.reduce(divergence, fragile)}
        if self.forget == "kl":
            apart = self.reduce(forget_kl(student_logits, teacher_logits), ~fragile)
            terms["forget"] = -(self.weight * apart).clamp(max=self.clip)
        elif self.forget == "unlikelihood":
            terms["forget"] = self.weight * self.reduce(forget_unlikelihood(student_logits, teacher_logits), ~fragile)
        return terms

    def steer(self, teacher: Teacher, generator: torch.Generator) -> Steer | None:
        if not self.masks_generator:
            return None

        def weights(images: Tensor, logits: Tensor) -> Tensor:
            with teacher.counted_as("split"):
                return self.criterion.guess(teacher, images, logits, generator).float()

        return weights

    def warnings(self) -> list[str]:
        return self.criterion.warnings()


class Forgetting(ATEsc):
    """ATEsc's forgetting without its calibrated distillation: all images are distilled, and the robust ones are
    forgotten as well.

        kd      1/B * sum_B D(t || s),  D the student's distillation loss
        forget  as in `ATEsc`

    Args:
        args, kwargs: arguments of `ATEsc`; steer='none' leaves the generator alone, too.
    """

    def loss(
        self, student_logits: Tensor, teacher_logits: Tensor, divergence: Tensor, fragile: Tensor
    ) -> dict[str, Tensor]:
        return super().loss(student_logits, teacher_logits, divergence, fragile) | {"kd": divergence.mean()}
