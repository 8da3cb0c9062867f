"""The base class of synthesizers that make one batch per round, each by a separate optimisation."""

import contextlib
from abc import abstractmethod
from collections.abc import Callable, Generator, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfkd.errors import refuse_old_names
from dfkd.machine.capture import asking, detached, is_ours
from dfkd.models import Teacher
from dfkd.priors import Prior, TeacherPass
from dfkd.synthesizers.adversarial import adversarial_term
from dfkd.synthesizers.base import Steer, Synthesizer, Synthetic, known
from dfkd.synthesizers.step import Evaluation, Optimization, Step, optimised
from dfkd.training.augment import AUGMENTATIONS, augment, draw


class Best:
    """Stores a copy of the iterate with the lowest loss, without synchronising with the GPU."""

    def __init__(self):
        self.loss: Tensor | None = None
        self.images: Tensor | None = None

    def offer(self, loss: Tensor, images: Tensor) -> None:
        """Store `images` if their scalar `loss` is the lowest so far. The first images are always stored, later ones
        with a NaN loss never."""
        loss, images = loss.detach(), images.detach()
        if self.images is None:
            self.loss, self.images = loss.clone().nan_to_num(torch.inf), images.clone()
            return
        better = loss < self.loss
        self.loss = torch.where(better, loss, self.loss)
        self.images = torch.where(better, images, self.images)


def balanced_labels(count: int, classes: int, stream: torch.Generator, shuffle: bool = True) -> Tensor:
    """Draw target classes (count,): every class count // classes times, and distinct random classes for the rest.

    Args:
        shuffle: return them in random order; otherwise 0 1 2 ... 0 1 2 ..., with the rest at the end.
    """
    device = stream.device
    whole = torch.arange(classes, device=device).repeat(count // classes)
    labels = torch.cat([whole, torch.randperm(classes, generator=stream, device=device)[: count % classes]])
    return labels[torch.randperm(count, generator=stream, device=device)] if shuffle else labels


def agreement(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """1 where student and teacher predict the same class (B,), else 0. Where they disagree already, the adversarial
    term has nothing to seek."""
    return (student_logits.argmax(1) == teacher_logits.argmax(1)).to(teacher_logits.dtype)


def check_adam(lr: float, betas: tuple[float, float]) -> None:
    """Raise ValueError unless lr > 0 and betas are two numbers in [0, 1)."""
    if lr <= 0 or len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise ValueError(f"need lr > 0 and two betas in [0, 1), got {lr=} and betas={list(betas)}")


def to_bytes(images: Tensor) -> Tensor:
    """Convert images in [0, 1] to 8 bits, with rounding (the public code's PNG files truncate)."""
    return (images.clamp(0, 1) * 255).round().to(torch.uint8)


@contextlib.contextmanager
def evaluation_mode(student: nn.Module | None) -> Iterator[None]:
    """Context manager: puts the student into evaluation mode, and restores its mode afterwards."""
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
    """Optimises one batch per round. The iterate with the lowest total loss is added to the pool, as 8-bit images.

        one_hot * CE(t, y) + adversarial * adversarial_term (where t and s agree) + more terms + weighted priors

    The targets y are drawn so that classes are equally frequent. A subclass defines in `begin` what is optimised, and
    in `more_terms` any further terms. The random numbers of a step are drawn before it (`draw_for_views`,
    `draw_for_terms`), so that a GPU can run the step as a CUDA graph.

    Args:
        classes: number of classes of the teacher.
        prior: weighted priors.
        rounds: number of rounds (batches).
        steps: optimisation steps per batch.
        batch_size: images per batch.
        one_hot, adversarial: weights of the two terms, at least 0; a term of weight 0 is skipped.
        warm_up: number of first rounds without the adversarial term and without training of the student.
        views: what teacher and student see of the images in every step: one of `dfkd.training.augment.augment`. The
            pool gets the images themselves.

    Raises:
        ValueError: a number is out of range, or views is unknown.
    """

    online = True
    columns = ("target",)
    takes_term = True
    needs_box = True  # the pool's images are 8-bit

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        renamed = {"augmented": "view", "augment": "view", "keep": "to_pool_format", "look": "run_teacher"}
        refuse_old_names(cls, renamed)

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
        views: str = "none",
    ):
        super().__init__(rounds)
        if steps < 1 or batch_size < 2:
            raise ValueError(f"need steps >= 1 and batch_size >= 2, got {steps} and {batch_size}")
        if one_hot < 0 or adversarial < 0:
            raise ValueError(f"weights must not be negative, got {one_hot=} and {adversarial=}")
        if not 0 <= warm_up < rounds:
            raise ValueError(f"warm_up must lie in [0, rounds), got warm_up={warm_up} with rounds={rounds}")
        if views not in AUGMENTATIONS:
            raise ValueError(f"views must be one of {', '.join(AUGMENTATIONS)}, got '{views}'")
        self.classes, self.prior, self.steps, self.batch_size = classes, prior, steps, batch_size
        self.one_hot, self.adversarial, self.warm_up, self.views = one_hot, adversarial, warm_up, views

    @abstractmethod
    def begin(self, round: int, labels: Tensor, teacher: Teacher, stream: torch.Generator) -> Optimization:
        """Set up the optimisation of this round, from a new initialisation.

        Networks that are initialised again in place keep a recorded step valid (CUDA graphs); new ones are recorded
        again.

        Args:
            labels: target classes (B,).
            stream: random stream of this round.
        """

    def draw_for_views(self, number: int, teacher: Teacher, stream: torch.Generator) -> tuple[Tensor, ...]:
        """Draw the random numbers of `view` in step `number` of a round."""
        return draw(self.views, self.batch_size, teacher.shape[1], stream)

    def draw_for_terms(self, stream: torch.Generator) -> tuple[Tensor | None, ...]:
        """Draw the random numbers of `more_terms` in one step; here, none."""
        return ()

    def view(self, images: Tensor, *drawn: Tensor) -> Tensor:
        """Return the views (B, C, H, W) of the images that teacher and student see in this step.

        Args:
            drawn: the random numbers of `draw_for_views`.
        """
        return augment(images, self.views, *drawn)

    def more_terms(self, step: Step) -> dict[str, Tensor]:
        """Compute further weighted terms, each a scalar; here, none."""
        return {}

    def remember(self, last: Evaluation) -> None:
        """Called after the last step of a round, with what it has computed: update what later rounds depend on."""
        self.prior.remember(last.teacher_pass)

    def labels(self, stream: torch.Generator) -> Tensor:
        """Draw the target classes (B,) of a batch."""
        return balanced_labels(self.batch_size, self.classes, stream)

    def to_pool_format(self, images: Tensor) -> Tensor:
        """Convert the images to the form that the pool stores; here, to 8 bits."""
        return to_bytes(images)

    def run_teacher(self, teacher: Teacher, images: Tensor) -> TeacherPass:
        """Run the teacher on (augmented) images in [0, 1], and record what the priors need."""
        return self.prior.run_teacher(teacher, teacher.normalize(images))

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
        self.evaluate = runtime.captured("a step of the images", self._evaluate)

    def synthesize(
        self, rounds: range, teacher: Teacher, student: nn.Module | None = None, steer: Steer | None = None
    ) -> Synthetic:
        round, stream = rounds.start, self.stream(rounds.start)
        labels = self.labels(stream)
        optimization, best, metrics = self.begin(round, labels, teacher, stream), Best(), {}
        steps = range(self.steps)
        if optimization.optimizer is not None:
            parts = {"parameters": optimization.parameters, "optimizer": optimization.optimizer, "stream": stream}
            steps = self.loop("step", self.steps, **parts, best=best, metrics=metrics)
        places, warming_up = optimization.places(), round < self.warm_up
        evaluate = self.evaluate if self._can_capture else asking(self._evaluate)
        with evaluation_mode(student):
            for number in steps:
                drawn = self.draw_for_views(number, teacher, stream), self.draw_for_terms(stream)
                made_by = optimization.make, optimization.networks, places, optimization.source
                found = evaluate(*made_by, labels, drawn, warming_up, teacher, student, steer)
                best.offer(found.total, found.images)
                for parameter, gradient in zip(optimization.parameters, found.gradients, strict=True):
                    parameter.grad = gradient
                optimization.advance()
                if number == self.steps - 1:
                    self.remember(found)
                    metrics |= {name: value.clone() for name, value in found.terms.items()}
                    metrics["hit"] = (found.teacher_pass.logits.argmax(1) == labels).float().mean()
        optimization.finish()
        return Synthetic(self.to_pool_format(best.images), {"target": labels}, metrics)

    @property
    def _can_capture(self) -> bool:
        """Whether a step, but for what it asks `steer`, depends on its arguments and on tensors that keep their place
        alone. The steps of this package's methods do; those of a user's own may depend on anything."""
        pure = self.term is None and self.prior.is_pure and is_ours(type(self))
        return pure and self.runtime.captures

    def _evaluate(
        self,
        make: Callable[[Tensor], Tensor],
        networks: tuple[nn.Module, ...],
        places: tuple[int, ...],
        source: Tensor,
        labels: Tensor,
        drawn: tuple[tuple[Tensor, ...], tuple[Tensor | None, ...]],
        warming_up: bool,
        teacher: Teacher,
        student: nn.Module | None,
        steer: Steer | None,
    ) -> Generator[tuple, Tensor, Evaluation]:
        """Compute the loss of one step and its gradients. Asks `steer` for its weights (`CapturedStep`).

        Args:
            make, networks, source: see `Optimization`.
            places: `Optimization.places()`; an argument so that a CUDA graph is used for these places only.
            drawn: the random numbers of `draw_for_views` and of `draw_for_terms`.
            labels, warming_up, teacher, student, steer: see `Step`.
        """
        for_views, for_terms = drawn
        with self.runtime.autocast():
            images = make(source)
            views = self.view(images, *for_views)
            teacher_pass = self.run_teacher(teacher, views)
        if steer is not None and self.asks_steer(warming_up):
            weights = yield steer, views.detach().float(), teacher_pass.logits.detach()
            steer = known(weights)
        step = Step(images, views, teacher_pass, labels, teacher, student, steer, warming_up, for_terms)
        terms = self._terms(step)
        total = sum(terms.values())
        # Gradients of the optimised tensors only: `backward` would also fill those of the student.
        with self.runtime.gradients():
            gradients = torch.autograd.grad(total, optimised(networks, source))
        seen, kept = teacher_pass.detached(), step.kept
        return Evaluation(detached(terms), total.detach(), images.detach().float(), list(gradients), seen, kept)

    def _terms(self, step: Step) -> dict[str, Tensor]:
        t, terms = step.teacher_pass.logits, {}
        if self.one_hot > 0:
            terms["one_hot"] = self.one_hot * F.cross_entropy(t, step.labels)
        if self.adversarial > 0 and not step.warming_up:
            s = self.answers(step)
            terms["adversarial"] = self.adversarial * adversarial_term(s, t, agreement(s, t) * steer_weights(step))
        if self.term is not None:
            terms["defense"] = self.term(step.views.float(), t)
        terms |= self.more_terms(step)
        return terms | {name: value.sum() for name, value in self.prior(step.teacher_pass).items()}

    def asks_steer(self, warming_up: bool) -> bool:
        """Return whether the terms are known to ask `steer`, with all views. Then it is asked beforehand, once."""
        return is_ours(type(self)) and self.adversarial > 0 and not warming_up

    def answers(self, step: Step) -> Tensor:
        """Run the student on `step.views` and return its logits (B, classes), float32."""
        with self.runtime.autocast():
            return step.student(step.views).float()


def steer_weights(step: Step) -> Tensor:
    """Return the defense's weights (B,) of the adversarial term; ones if there is no `steer`."""
    if step.steer is None:
        return torch.ones_like(step.teacher_pass.logits[:, 0])
    return step.steer(step.views.detach().float(), step.teacher_pass.logits.detach())
