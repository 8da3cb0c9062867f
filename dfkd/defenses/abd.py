"""ABD: anti-backdoor data-free distillation (Hong et al., ICML 2023, arXiv 2306.02368)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dfkd.defenses.base import Defense
from dfkd.defenses.retrospection import divergence, hypergradient, universal_perturbation
from dfkd.defenses.vaccine import ShufflingVaccine, shufflable
from dfkd.models import Classifier, Teacher
from dfkd.pool import Pool
from dfkd.resume.loop import Loop, plain_loop
from dfkd.synthesizers.base import SynthesisTerm, Synthesizer
from dfkd.training.meter import Meter
from dfkd.training.optimizers import fused


class ABD(Defense):
    """A shuffling vaccine in the generator's loss, and self-retrospection of the student; all images are distilled.

    The vaccine is `dfkd.defenses.vaccine`. Self-retrospection takes `steps` steps after the last round, each on a batch
    x of the pool with the teacher's logits t:

        d = argmax_d KL(T(x) || T(x + d))                                     one perturbation for the batch
        loss = KD(S(x), t) + weight * mean_i KL(S(x_i) || S(x_i + m_i d)),    m picks `share` of the images

    The gradient of the second term also passes through d, as if d minimised the student's inner loss
    - mean_i KL(S(x_i) || S(x_i + d)) + decay * ||d||^2 (`retrospection.hypergradient`).

    Differences from the public code: retrospection follows the training instead of being its last part, and uses Adam.
    The student is in evaluation mode during it, so that perturbed images do not change its BatchNorm statistics. The
    optional search for good shuffles (off by default in the public code) is not implemented.

    Args:
        vaccine: weight of the vaccine, at least 0; 0 disables it.
        copies, layers: arguments of `ShufflingVaccine`.
        steps: number of self-retrospection steps; 0 disables it.
        lr: learning rate of self-retrospection (Adam).
        batch_size: images per step.
        weight: weight of the retrospection term, at least 0.
        share: share of the batch that is perturbed, in (0, 1]; at least one image.
        inner_steps, inner_lr: number of steps and learning rate of Adam on the perturbation.
        fixed_point: iterations of the hypergradient.
        fixed_point_step: step size of the hypergradient's fixed-point map.
        decay: weight of ||d||^2 in the inner loss, at least 0.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(
        self,
        vaccine: float = 0.1,
        copies: int = 3,
        layers: int = 5,
        steps: int = 200,
        lr: float = 5e-4,
        batch_size: int = 128,
        weight: float = 1.0,
        share: float = 0.02,
        inner_steps: int = 10,
        inner_lr: float = 0.1,
        fixed_point: int = 5,
        fixed_point_step: float = 0.1,
        decay: float = 0.001,
    ):
        counts = {"copies": copies, "layers": layers, "batch_size": batch_size}
        for name, value in (counts | {"inner_steps": inner_steps, "fixed_point": fixed_point}).items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        for name, value in {"vaccine": vaccine, "steps": steps, "weight": weight, "decay": decay}.items():
            if value < 0:
                raise ValueError(f"{name} must not be negative, got {value}")
        for name, value in {"lr": lr, "inner_lr": inner_lr, "fixed_point_step": fixed_point_step}.items():
            if value <= 0:
                raise ValueError(f"{name} must be positive, got {value}")
        if not 0 < share <= 1:
            raise ValueError(f"share must lie in (0, 1], got {share}")
        self.vaccine, self.copies, self.layers = vaccine, copies, layers
        self.steps, self.lr, self.batch_size, self.weight, self.share = steps, lr, batch_size, weight, share
        self.inner_steps, self.inner_lr = inner_steps, inner_lr
        self.fixed_point, self.fixed_point_step, self.decay = fixed_point, fixed_point_step, decay

    def check(self, network: nn.Module, synthesizer: Synthesizer) -> None:
        if self.vaccine > 0 and not shufflable(network):
            raise ValueError(
                "the vaccine shuffles input channels of convolutions, and the teacher's network has no convolution "
                "with more than one; choose another network, or set defense.vaccine=0"
            )
        if self.vaccine > 0 and not synthesizer.takes_term:
            raise ValueError(
                "the vaccine is a term of a generator's loss, and this synthesizer takes none; choose synthesizer=dfq, "
                "or set defense.vaccine=0 (self-retrospection alone)"
            )

    def synthesis_term(self, teacher: Teacher, generator: torch.Generator) -> SynthesisTerm | None:
        if self.vaccine == 0:
            return None
        return ShufflingVaccine(teacher, self.vaccine, self.copies, self.layers, generator)

    def finish(
        self,
        student: Classifier,
        teacher: Teacher,
        pool: Pool,
        loss: Callable[[Tensor, Tensor], Tensor],
        generator: torch.Generator,
        loop: Loop = plain_loop,
    ) -> dict[str, float]:
        if self.steps == 0:
            return {}
        parameters = [p for p in student.parameters() if p.requires_grad]
        optimizer, meter = fused(torch.optim.Adam, parameters, lr=self.lr), Meter()
        mode = student.training
        student.eval()
        for _ in loop("retrospection step", self.steps, optimizer=optimizer, meter=meter):
            index = torch.randperm(len(pool), generator=generator, device=pool.logits.device)[: self.batch_size]
            x, t = pool.pixels(index), pool.logits[index]
            kd = loss(student(x).float(), t).mean()
            gradients = torch.autograd.grad(kd, parameters)
            delta = universal_perturbation(teacher, x, generator, self.inner_steps, self.inner_lr)
            unlearned, more = self._retrospect(student, x, delta, parameters)
            for p, a, b in zip(parameters, gradients, more, strict=True):
                p.grad = a + self.weight * b
            optimizer.step()
            meter.add(
                {"retrospection/kd": kd, "retrospection/unlearned": unlearned, "retrospection/norm": delta.norm()}
            )
        optimizer.zero_grad(set_to_none=True)
        student.train(mode)
        return meter.read()

    def _retrospect(
        self, student: Classifier, x: Tensor, delta: Tensor, parameters: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """Compute the retrospection term of a batch in random order (its first images are perturbed), and the term's
        hypergradient."""
        count = max(1, int(self.share * len(x)))
        with torch.no_grad():
            clean = student(x)

        def inner(d: Tensor) -> Tensor:
            return -divergence(clean, student(x + d)).mean() + self.decay * d.square().sum()

        def outer(d: Tensor) -> Tensor:  # the other images are not perturbed and add nothing to the sum
            return divergence(clean[:count], student(x[:count] + d)).sum() / len(x)

        return hypergradient(outer, inner, delta, parameters, self.fixed_point_step, self.fixed_point)
