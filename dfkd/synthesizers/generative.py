"""The base class of online synthesizers that train one generator over all rounds."""

from abc import abstractmethod
from collections.abc import Generator

import torch
from torch import Tensor, nn

from dfkd.machine.capture import answered, detached, is_ours
from dfkd.models import Teacher, frozen_norms
from dfkd.priors import Prior, TeacherPass
from dfkd.synthesizers.base import Steer, Synthesizer, Synthetic, known
from dfkd.training.optimizers import fused


def term_weights(**weights: float) -> dict[str, float]:
    """Check the weights of terms and return them by name.

    Raises:
        ValueError: a weight is negative.
    """
    for name, weight in weights.items():
        if weight < 0:
            raise ValueError(f"{name} is a weight and must not be negative, got {weight}")
    return weights


class Generative(Synthesizer):
    """A generator trained alternately with the student. Every round takes a few generator steps, then draws new images.

    A subclass defines in `terms` what the generator minimises besides the weighted priors. A conditional generator
    (`generator.conditional`) gets uniformly drawn labels.

    Args:
        generator: maps latent vectors (B, generator.latent), and labels (B,) if it is conditional, to images in [0, 1].
        prior: weighted priors.
        rounds: number of rounds.
        steps: generator steps per round.
        batch_size: images per generator step.
        images: images per round for the student, drawn with the generator in evaluation mode.
        lr, betas: options of the generator's Adam.

    Attributes:
        weights: weights of the subclass's terms by name. The subclass sets them (`term_weights`) and skips a term of
            weight 0.

    Raises:
        ValueError: a number is out of range.
    """

    online = True
    takes_term = True

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
        self.weights: dict[str, float] = {}

    @abstractmethod
    def terms(
        self, images: Tensor, labels: Tensor, teacher_pass: TeacherPass, student: nn.Module, steer: Steer | None
    ) -> dict[str, Tensor]:
        """Compute the weighted terms of the generator's loss, without the priors, each a scalar.

        Args:
            images: images of this step (B, C, H, W), in [0, 1], differentiable in the generator's parameters.
            labels: (B,), the labels given to a conditional generator, otherwise the teacher's predictions argmax t.
            teacher_pass: the teacher's logits and statistics for the images (`dfkd.priors.TeacherPass`).
            student: in evaluation mode.
            steer: weights of an adversarial term per image; None means 1.
        """

    def check(self, network: nn.Module) -> None:
        if not (any(self.weights.values()) or self.prior.terms):
            raise ValueError(f"nothing to minimise: {', '.join(self.weights)} and every prior are 0")
        self.prior.check(network)

    def start(self, runtime, seed: int) -> None:
        super().start(runtime, seed)
        self.prior.start()
        runtime.to_device(self.generator)
        self.gradients = runtime.captured("a step of the generator", self._gradients)
        self.optimizer = fused(torch.optim.Adam, self.generator.parameters(), lr=self.lr, betas=self.betas)

    def synthesize(
        self, rounds: range, teacher: Teacher, student: nn.Module | None = None, steer: Steer | None = None
    ) -> Synthetic:
        stream = self.stream(rounds.start)
        mode = student.training
        student.eval()
        self.generator.train()
        for _ in range(self.steps):
            z, labels = self._latent(self.batch_size, stream), self._labels(self.batch_size, stream)
            terms, teacher_pass = self._step(z, labels, teacher, student, steer)
        self.prior.remember(teacher_pass)
        student.train(mode)
        return Synthetic(self._student_images(stream), metrics=terms)

    def adversarial_inputs(
        self, student: nn.Module, images: Tensor, teacher_pass: TeacherPass, steer: Steer | None
    ) -> tuple[Tensor, ...]:
        """Return the arguments of an adversarial term: the student's logits, the teacher's, and the weights or None."""
        with self.runtime.autocast(), frozen_norms(student):
            s = student(images).float()
        weights = None if steer is None else steer(images.detach().float(), teacher_pass.logits.detach())
        return s, teacher_pass.logits, weights

    def _step(
        self, z: Tensor, labels: Tensor | None, teacher: Teacher, student: nn.Module, steer: Steer | None
    ) -> tuple[dict[str, Tensor], TeacherPass]:
        """Take one step of the generator.

        Returns:
            (the terms of its loss; the teacher's forward pass on the images, valid until the next step).
        """
        arguments = z, labels, teacher, student, steer
        found = self.gradients(*arguments) if self._can_capture else answered(self._gradients, arguments)
        terms, gradients, teacher_pass = found
        for p, gradient in zip(self.generator.parameters(), gradients, strict=True):
            p.grad = gradient
        self.optimizer.step()
        return terms, teacher_pass

    @property
    def _can_capture(self) -> bool:
        """Whether a step, but for what it asks `steer`, depends on its arguments and the networks alone. The terms of
        this package's methods do; those of a user's own may depend on anything."""
        pure = self.term is None and self.prior.is_pure and is_ours(type(self).terms)
        return pure and self.runtime.captures

    @property
    def _asks_steer(self) -> bool:
        """Whether `terms` is known to ask `steer` once, with all images. Then it is asked beforehand."""
        return is_ours(type(self).terms) and self.weights.get("adversarial", 0) > 0

    def _gradients(
        self, z: Tensor, labels: Tensor | None, teacher: Teacher, student: nn.Module, steer: Steer | None
    ) -> Generator[tuple, Tensor, tuple[dict[str, Tensor], list[Tensor], TeacherPass]]:
        """Return the terms of the generator's loss, their gradients of its parameters, and the teacher's forward pass
        on the images. Asks `steer` for its weights (`CapturedStep`)."""
        with self.runtime.autocast():
            images = self._generate(self.generator, z, labels)
            teacher_pass = self.prior.run_teacher(teacher, teacher.normalize(images))
        labels = teacher_pass.logits.argmax(1) if labels is None else labels
        if steer is not None and self._asks_steer:
            weights = yield steer, images.detach().float(), teacher_pass.logits.detach()
            steer = known(weights)
        terms = self.terms(images, labels, teacher_pass, student, steer)
        if self.term is not None:
            terms["defense"] = self.term(images.float(), teacher_pass.logits)
        terms |= {name: value.sum() for name, value in self.prior(teacher_pass).items()}
        # Gradients of the generator only: `backward` would also fill those of the student.
        with self.runtime.gradients():
            gradients = torch.autograd.grad(sum(terms.values()), list(self.generator.parameters()))
        return detached(terms), list(gradients), teacher_pass.detached()

    def _student_images(self, stream: torch.Generator) -> Tensor:
        """Draw the images of a round for the student."""
        return self._sample(self.generator, self.images, stream)

    def _sample(self, generator: nn.Module, count: int, stream: torch.Generator) -> Tensor:
        """Draw images (count, C, H, W) from a generator, in evaluation mode and without gradients."""
        generator.eval()
        z, labels = self._latent(count, stream), self._labels(count, stream)
        with torch.no_grad(), self.runtime.autocast():
            return self._generate(generator, z, labels).float()

    def _generate(self, generator: nn.Module, z: Tensor, labels: Tensor | None) -> Tensor:
        return generator(z) if labels is None else generator(z, labels)

    def _latent(self, count: int, stream: torch.Generator) -> Tensor:
        return torch.randn(count, self.generator.latent, generator=stream, device=self.runtime.device)

    def _labels(self, count: int, stream: torch.Generator) -> Tensor | None:
        """Draw uniform classes (count,) for a conditional generator; None for other generators."""
        if not getattr(self.generator, "conditional", False):
            return None
        return torch.randint(self.generator.classes, (count,), generator=stream, device=self.runtime.device)
