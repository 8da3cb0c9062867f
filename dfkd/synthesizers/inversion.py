"""What synthesizers share that make one batch a round, each with a short optimisation of its own."""

import contextlib
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfkd.models import Teacher
from dfkd.priors import Prior, View
from dfkd.synthesizers.adversarial import adversarial_term
from dfkd.synthesizers.base import Steer, Synthesizer, Synthetic


@dataclass
class Work:
    """One batch while it is made.

    Attributes:
        paint: () -> the images as they are now (B, C, H, W), nominally in [0, 1]; gradients reach `parameters`.
        parameters: what is optimised.
        advance: takes one step; the gradients are in `.grad` of the parameters.
        finish: called once, after the last step.
        optimizer: all that `advance` changes beside the parameters, where a batch takes long: its steps can then be
            stopped and gone on with.
    """

    paint: Callable[[], Tensor]
    parameters: list[Tensor]
    advance: Callable[[], None]
    finish: Callable[[], None] = lambda: None
    optimizer: torch.optim.Optimizer | None = None


@dataclass
class Step:
    """What the terms of one step may look at.

    Attributes:
        round: number of the batch.
        images: of this step (B, C, H, W), nominally in [0, 1]; gradients reach what is optimised.
        seen: the view of them that teacher and student are shown: `images`, or an augmentation of them.
        view: the teacher's look at `seen`.
        labels: targets (B,).
        teacher, student, steer: as in `Synthesizer.synthesize`; the student is in evaluation mode.
        stream: of this round.
    """

    round: int
    images: Tensor
    seen: Tensor
    view: View
    labels: Tensor
    teacher: Teacher
    student: nn.Module | None
    steer: Steer | None
    stream: torch.Generator


class Best:
    """The iterate with the lowest loss: a copy, not another name for what goes on changing. Never stops a GPU."""

    def __init__(self):
        self.loss: Tensor | None = None
        self.images: Tensor | None = None

    def offer(self, loss: Tensor, images: Tensor) -> None:
        """Keep `images` if their scalar `loss` is the lowest so far (the first always is, NaN never)."""
        loss, images = loss.detach(), images.detach()
        if self.images is None:
            self.loss, self.images = loss.clone().nan_to_num(torch.inf), images.clone()
            return
        better = loss < self.loss
        self.loss = torch.where(better, loss, self.loss)
        self.images = torch.where(better, images, self.images)


def balanced_labels(count: int, classes: int, stream: torch.Generator, shuffle: bool = True) -> Tensor:
    """Targets (count,): every class count // classes times, the rest a random choice of distinct classes.

    Args:
        shuffle: in random order; else class by class, 0 1 2 ... 0 1 2 ..., the rest at the end.
    """
    device = stream.device
    whole = torch.arange(classes, device=device).repeat(count // classes)
    labels = torch.cat([whole, torch.randperm(classes, generator=stream, device=device)[: count % classes]])
    return labels[torch.randperm(count, generator=stream, device=device)] if shuffle else labels


def agreement(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """1 where student and teacher give the same answer (B,), else 0: no use in seeking what is already disputed."""
    return (student_logits.argmax(1) == teacher_logits.argmax(1)).to(teacher_logits.dtype)


def check_adam(lr: float, betas: tuple[float, float]) -> None:
    """Raise ValueError unless Adam can run with these numbers."""
    if lr <= 0 or len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise ValueError(f"need lr > 0 and two betas in [0, 1), got {lr=} and betas={list(betas)}")


def to_bytes(images: Tensor) -> Tensor:
    """Images in [0, 1] as 8-bit ones, rounded (the public codes' PNG files truncate)."""
    return (images.clamp(0, 1) * 255).round().to(torch.uint8)


@contextlib.contextmanager
def evaluation_mode(student: nn.Module | None) -> Iterator[None]:
    """The student in evaluation mode inside the block, and as it was after."""
    if student is None:
        yield
        return
    mode = student.training
    student.eval()
    try:
        yield
    finally:
        student.train(mode)


class Inversion(Synthesizer):
    """One batch a round. Its iterate with the lowest total loss goes to the pool, as 8-bit images.

        one_hot * CE(t, y) + adversarial * adversarial_term (where t and s agree) + more terms + weighted priors

    y: sampled, every class equally often. A subclass says in `begin` what is optimised, and in `more_terms` what else.

    Args:
        classes: of the teacher.
        prior: weighted terms.
        rounds: batches.
        steps: optimisation steps a batch.
        batch_size: images a batch.
        one_hot, adversarial: weights of the two terms; one of weight 0 is skipped.
        warm_up: so many of the rounds come before the student's training, without the adversarial term.

    Raises:
        ValueError: a number out of range.
    """

    online = True
    columns = ("target",)
    takes_term = True
    needs_box = True  # the pool's images are 8-bit

    def __init__(
        self,
        classes: int,
        prior: Prior,
        rounds: int,
        steps: int,
        batch_size: int,
        one_hot: float,
        adversarial: float = 0.0,
        warm_up: int = 0,
    ):
        super().__init__(rounds)
        if steps < 1 or batch_size < 2:
            raise ValueError(f"need steps >= 1 and batch_size >= 2, got {steps} and {batch_size}")
        if one_hot < 0 or adversarial < 0:
            raise ValueError(f"weights must not be negative, got {one_hot=} and {adversarial=}")
        if not 0 <= warm_up < rounds:
            raise ValueError(f"warm_up must lie in [0, rounds), got warm_up={warm_up} with rounds={rounds}")
        self.classes, self.prior, self.steps, self.batch_size = classes, prior, steps, batch_size
        self.one_hot, self.adversarial, self.warm_up = one_hot, adversarial, warm_up

    @abstractmethod
    def begin(self, round: int, labels: Tensor, teacher: Teacher, stream: torch.Generator) -> Work:
        """What is optimised in this round, from a fresh start."""

    def augmented(self, images: Tensor, stream: torch.Generator) -> Tensor:
        """The view of the images that teacher and student are shown in this step."""
        return images

    def more_terms(self, step: Step) -> dict[str, Tensor]:
        """Further weighted terms, each a scalar."""
        return {}

    def labels(self, stream: torch.Generator) -> Tensor:
        """Draw the target classes (B,) of a batch."""
        return balanced_labels(self.batch_size, self.classes, stream)

    def keep(self, images: Tensor) -> Tensor:
        """The images as the pool keeps them."""
        return to_bytes(images)

    def look(self, teacher: Teacher, seen: Tensor) -> View:
        """The teacher's look at what it is shown."""
        return self.prior.look(teacher, teacher.normalize(seen))

    def check(self, network: nn.Module) -> None:
        if not (self.one_hot or self.adversarial or self.prior.terms):
            raise ValueError("there is nothing to minimise: one_hot, adversarial and every prior are 0")
        if self.warm_up and not (self.one_hot or self.prior.terms):
            raise ValueError(
                f"there is nothing to minimise in the first {self.warm_up} rounds (warm_up), which have no adversarial "
                f"term: one_hot and every prior are 0"
            )
        self.prior.check(network)

    def start(self, runtime, seed: int) -> None:
        super().start(runtime, seed)
        self.prior.start()

    def synthesize(
        self, rounds: range, teacher: Teacher, student: nn.Module | None = None, steer: Steer | None = None
    ) -> Synthetic:
        round, stream = rounds.start, self.stream(rounds.start)
        labels = self.labels(stream)
        work, best, metrics = self.begin(round, labels, teacher, stream), Best(), {}
        todo = range(self.steps)
        if work.optimizer is not None:
            parts = {"parameters": work.parameters, "optimizer": work.optimizer, "stream": stream}
            todo = self.loop("step", self.steps, **parts, best=best, metrics=metrics)
        with evaluation_mode(student):
            for number in todo:
                with self.runtime.autocast():
                    images = work.paint()
                    seen = self.augmented(images, stream)
                    view = self.look(teacher, seen)
                step = Step(round, images, seen, view, labels, teacher, student, steer, stream)
                terms = self._terms(step)
                total = sum(terms.values())
                best.offer(total, images.float())
                # gradients to what is optimised only: those of the student are none of this step's business
                gradients = torch.autograd.grad(total, work.parameters)
                for parameter, gradient in zip(work.parameters, gradients, strict=True):
                    parameter.grad = gradient
                work.advance()
                if number == self.steps - 1:
                    self.prior.remember(view)
                    metrics |= {name: value.detach() for name, value in terms.items()}
                    metrics["hit"] = (view.logits.argmax(1) == labels).float().mean()
        work.finish()
        return Synthetic(self.keep(best.images), {"target": labels}, metrics)

    def _terms(self, step: Step) -> dict[str, Tensor]:
        t, terms = step.view.logits, {}
        if self.one_hot > 0:
            terms["one_hot"] = self.one_hot * F.cross_entropy(t, step.labels)
        if self.adversarial > 0 and step.round >= self.warm_up:
            s = self.answers(step)
            terms["adversarial"] = self.adversarial * adversarial_term(s, t, agreement(s, t) * steer_weights(step))
        if self.term is not None:
            terms["defense"] = self.term(step.seen.float(), t)
        terms |= self.more_terms(step)
        return terms | {name: value.sum() for name, value in self.prior(step.view).items()}

    def answers(self, step: Step) -> Tensor:
        """The student's logits for what it is shown (B, classes), float32."""
        with self.runtime.autocast():
            return step.student(step.seen).float()


def steer_weights(step: Step) -> Tensor:
    """The defense's weights (B,) of an adversarial term, or 1."""
    if step.steer is None:
        return torch.ones_like(step.view.logits[:, 0])
    return step.steer(step.seen.detach().float(), step.view.logits.detach())
