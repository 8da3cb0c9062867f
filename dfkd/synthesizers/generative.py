"""What synthesizers share that train one generator from the first round to the last."""

from abc import abstractmethod

import torch
from torch import Tensor, nn

from dfkd.models import Teacher
from dfkd.priors import Prior, View
from dfkd.synthesizers.base import Steer, Synthesizer, Synthetic


class Generative(Synthesizer):
    """A generator trained while the student is: a few steps a round, then a round's fresh images for the student.

    A subclass says in `terms` what the generator minimises beside the weighted priors.

    Args:
        generator: maps latent vectors (B, generator.latent) to images in [0, 1].
        prior: weighted terms.
        rounds: number of rounds.
        steps: generator steps a round.
        batch_size: images a generator step.
        images: images a round gives to the student, drawn with the generator in evaluation mode.
        lr, betas: of the generator's Adam.

    Raises:
        ValueError: a number out of range.
    """

    online = True

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
    ):
        super().__init__(rounds)
        if steps < 1 or batch_size < 2 or images < 1:
            raise ValueError(f"need steps >= 1, batch_size >= 2 and images >= 1, got {steps}, {batch_size}, {images}")
        if lr <= 0:
            raise ValueError(f"lr must be positive, got {lr}")
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas must be two numbers in [0, 1), got {list(betas)}")
        self.generator, self.prior = generator, prior
        self.steps, self.batch_size, self.images = steps, batch_size, images
        self.lr, self.betas = lr, tuple(betas)

    @abstractmethod
    def terms(self, images: Tensor, view: View, student: nn.Module, steer: Steer | None) -> dict[str, Tensor]:
        """Weighted terms of the generator's loss, without the priors, each a scalar.

        Args:
            images: of this step (B, C, H, W), in [0, 1]; gradients reach the generator.
            view: the teacher's look at them.
            student: in evaluation mode.
            steer: weights of an adversarial term per image, or None for 1.
        """

    def check(self, network: nn.Module) -> None:
        self.prior.check(network)

    def start(self, runtime, seed: int) -> None:
        super().start(runtime, seed)
        self.prior.start()
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
            terms, view = self._step(self._latent(self.batch_size, stream), teacher, student, steer)
        self.prior.remember(view)
        student.train(mode)
        self.generator.eval()
        with torch.no_grad(), self.runtime.autocast():
            images = self.generator(self._latent(self.images, stream)).float()
        return Synthetic(images, metrics=terms)

    def _step(
        self, z: Tensor, teacher: Teacher, student: nn.Module, steer: Steer | None
    ) -> tuple[dict[str, Tensor], View]:
        """One step of the generator. Returns its terms and the teacher's look at its images."""
        with self.runtime.autocast():
            images = self.generator(z)
            view = self.prior.look(teacher, teacher.normalize(images))
        terms = self.terms(images, view, student, steer)
        terms |= {name: value.sum() for name, value in self.prior(view).items()}
        # gradients to the generator only: the student's own are none of this step's business
        parameters = list(self.generator.parameters())
        for p, gradient in zip(parameters, torch.autograd.grad(sum(terms.values()), parameters), strict=True):
            p.grad = gradient
        self.optimizer.step()
        return {name: value.detach() for name, value in terms.items()}, view

    def _latent(self, count: int, stream: torch.Generator) -> Tensor:
        return torch.randn(count, self.generator.latent, generator=stream, device=self.runtime.device)
