"""DFQ: data-free quantisation's adversarial generator as a distillation method (Choi et al., CVPRW 2020, 2005.04136).

In the form of CMI's benchmark. Needs the teacher's outputs and input gradients, and its BatchNorm statistics if the
BN prior is on (the default). Looks at the student.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from dfkd.priors import Prior, View
from dfkd.synthesizers.base import Steer
from dfkd.synthesizers.generative import Generative


def adversarial_term(student_logits: Tensor, teacher_logits: Tensor, weights: Tensor | None = None) -> Tensor:
    """- mean_i w_i KL(softmax t_i || softmax s_i): the generator looks for images on which the student is wrong.

    Args:
        student_logits, teacher_logits: (B, C); gradients pass both.
        weights: (B,), in [0, 1], or None for 1. The mean is over the whole batch, whatever the weights.
    """
    s, t = student_logits.log_softmax(1), teacher_logits.log_softmax(1)
    divergence = (t.exp() * (t - s)).sum(1)
    return -(divergence if weights is None else weights * divergence).mean()


class DFQ(Generative):
    """A generator trained against the student.

        one_hot * CE(t, argmax t) + adversarial * adversarial_term + sum of the weighted priors (BN 1, balance 20)

    Args:
        one_hot, adversarial: weights of the two terms.
        others: of `Generative`.

    Raises:
        ValueError: a number out of range.
    """

    def __init__(
        self,
        generator: nn.Module,
        prior: Prior,
        rounds: int,
        steps: int,
        batch_size: int,
        images: int,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.5, 0.999),
        one_hot: float = 1.0,
        adversarial: float = 1.0,
    ):
        super().__init__(generator, prior, rounds, steps, batch_size, images, lr, betas)
        if one_hot < 0 or adversarial < 0:
            raise ValueError(f"weights must not be negative, got {one_hot=} and {adversarial=}")
        self.one_hot, self.adversarial = one_hot, adversarial

    def check(self, network: nn.Module) -> None:
        if not (self.one_hot or self.adversarial or self.prior.terms):
            raise ValueError("dfq has nothing to minimise: one_hot, adversarial and every prior are 0")
        super().check(network)

    def terms(self, images: Tensor, view: View, student: nn.Module, steer: Steer | None) -> dict[str, Tensor]:
        t, terms = view.logits, {}
        if self.one_hot > 0:
            terms["one_hot"] = self.one_hot * F.cross_entropy(t, t.argmax(1))
        if self.adversarial > 0:
            with self.runtime.autocast():
                s = student(images).float()
            # under bfloat16 these logits differ from the float32 ones that the pool is labelled with
            weights = None if steer is None else steer(images.detach().float(), t.detach())
            terms["adversarial"] = self.adversarial * adversarial_term(s, t, weights)
        return terms
