"""DFQ: data-free quantisation's adversarial generator as a distillation method (Choi et al., CVPRW 2020, 2005.04136).

In the form of CMI's benchmark. Needs the teacher's outputs and input gradients, and its BatchNorm statistics if the
BN prior is on (the default). Looks at the student.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfkd.models import Teacher
from dfkd.priors import Prior
from dfkd.synthesizers.base import Steer, Synthesizer, Synthetic


def adversarial_term(student_logits: Tensor, teacher_logits: Tensor, weights: Tensor | None = None) -> Tensor:
    """- mean_i w_i KL(softmax t_i || softmax s_i): the generator looks for images on which the student is wrong.

    Args:
        student_logits, teacher_logits: (B, C); gradients pass both.
        weights: (B,), in [0, 1], or None for 1. The mean is over the whole batch, whatever the weights.
    """
    s, t = student_logits.log_softmax(1), teacher_logits.log_softmax(1)
    divergence = (t.exp() * (t - s)).sum(1)
    return -(divergence if weights is None else weights * divergence).mean()


class DFQ(Synthesizer):
    """A generator trained against the student, one (or more) steps a round.

        one_hot * CE(t, argmax t) + adversarial * adversarial_term + sum of the weighted priors (BN 1, balance 20)

    After the generator's steps a round draws `images` fresh images with the generator in evaluation mode.

    Args:
        generator: maps latent vectors (B, generator.latent) to images in [0, 1].
        prior: weighted terms.
        rounds: number of rounds.
        steps: generator steps a round.
        batch_size: images a generator step.
        images: images a round gives to the student.
        lr, betas: of the generator's Adam.
        one_hot, adversarial: weights of the two terms.

    Raises:
        ValueError: a number out of range.
    """

    needs_student = True

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
        super().__init__(rounds)
        if steps < 1 or batch_size < 2 or images < 1:
            raise ValueError(
                f"dfq needs steps >= 1, batch_size >= 2 and images >= 1, got {steps}, {batch_size}, {images}"
            )
        if lr <= 0 or one_hot < 0 or adversarial < 0:
            raise ValueError(f"dfq needs lr > 0 and weights >= 0, got lr={lr}, {one_hot=}, {adversarial=}")
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas must be two numbers in [0, 1), got {list(betas)}")
        self.generator, self.prior = generator, prior
        self.steps, self.batch_size, self.images = steps, batch_size, images
        self.lr, self.betas, self.one_hot, self.adversarial = lr, tuple(betas), one_hot, adversarial

    def check(self, network: nn.Module) -> None:
        if not (self.one_hot or self.adversarial or self.prior.terms):
            raise ValueError("dfq has nothing to minimise: one_hot, adversarial and every prior are 0")
        self.prior.check(network)

    def start(self, runtime, seed: int) -> None:
        super().start(runtime, seed)
        runtime.place(self.generator)
        self.optimizer = torch.optim.Adam(self.generator.parameters(), lr=self.lr, betas=self.betas)

    def synthesize(
        self, rounds: range, teacher: Teacher, student: nn.Module | None = None, steer: Steer | None = None
    ) -> Synthetic:
        stream = self.stream(rounds.start)
        mode = student.training
        student.eval()
        self.generator.train()
        for _ in range(self.steps):
            terms = self._terms(self._latent(self.batch_size, stream), teacher, student, steer)
            self.optimizer.zero_grad(set_to_none=True)
            # gradients to the generator only: the student's own are none of this step's business
            parameters = list(self.generator.parameters())
            for p, gradient in zip(parameters, torch.autograd.grad(sum(terms.values()), parameters), strict=True):
                p.grad = gradient
            self.optimizer.step()
        metrics = {name: value.detach() for name, value in terms.items()}  # of the last step
        student.train(mode)
        self.generator.eval()
        with torch.no_grad(), self.runtime.autocast():
            images = self.generator(self._latent(self.images, stream)).float()
        return Synthetic(images, metrics=metrics)

    def _latent(self, count: int, stream: torch.Generator) -> Tensor:
        return torch.randn(count, self.generator.latent, generator=stream, device=self.runtime.device)

    def _terms(self, z: Tensor, teacher: Teacher, student: nn.Module, steer: Steer | None) -> dict[str, Tensor]:
        """Weighted terms of the generator's loss, each a scalar."""
        with self.runtime.autocast():
            images = self.generator(z)
            view = self.prior.look(teacher, teacher.normalize(images))
        t = view.logits
        terms = {}
        if self.one_hot > 0:
            terms["one_hot"] = self.one_hot * F.cross_entropy(t, t.argmax(1))
        if self.adversarial > 0:
            with self.runtime.autocast():
                s = student(images).float()
            weights = None if steer is None else steer(images.detach().float(), t.detach())
            terms["adversarial"] = self.adversarial * adversarial_term(s, t, weights)
        return terms | {name: value.sum() for name, value in self.prior(view).items()}
