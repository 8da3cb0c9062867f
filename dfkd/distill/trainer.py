"""The trainer: takes the student's steps on a pool."""

import contextlib

import torch
from torch import Tensor

from dfkd.defenses import Defense
from dfkd.defenses.views import Sources, Views
from dfkd.distill.losses import Loss
from dfkd.distill.student import Student
from dfkd.errors import NonFiniteLoss
from dfkd.machine import distributed
from dfkd.machine.capture import detached
from dfkd.machine.data_parallel import Objective, data_parallel_loss
from dfkd.machine.runtime import Runtime, seeded
from dfkd.models import Classifier, Teacher, classifier_head, watch_features
from dfkd.pool import Pool
from dfkd.recipe import Recipe
from dfkd.resume.loop import Loop, plain_loop
from dfkd.training.augment import augment, cut_mix, draw
from dfkd.training.meter import Meter


class Trainer:
    """Takes distillation steps on a pool.

    Args:
        total_steps: number of steps of the whole training, for the learning-rate schedule.
        teacher: labels augmented images and gives the features for a `FeatureLoss`; None if neither is used.
        loop: yields the step numbers; the run can be stopped between two of them.

    Raises:
        ValueError: no teacher is given, but the student uses augmented images or a `FeatureLoss`.

    Attributes:
        learned: the module that a `FeatureLoss` trains together with the student (`FeatureLoss.start`), or None.
        defense_term: the defense's additional term of the student's loss (`Defense.student_term`), or None.
    """

    def __init__(
        self,
        model: Classifier,
        student: Student,
        defense: Defense,
        runtime: Runtime,
        seed: int,
        total_steps: int,
        teacher: Teacher | None = None,
        loop: Loop = plain_loop,
    ):
        if (student.augment != "none" or defense.makes_views) and teacher is None:
            raise ValueError(f"augment='{student.augment}' needs the teacher, whose answers depend on the view")
        if student.matches_features and teacher is None:
            raise ValueError(f"{type(student.loss).__name__} needs the teacher, whose features it compares")
        self.model, self.student, self.defense, self.runtime, self.teacher = model, student, defense, runtime, teacher
        self.loop, self.learned = loop, None
        if student.matches_features:
            widths = (classifier_head(classifier.net).in_features for classifier in (model, teacher))
            with seeded(seed, "student", "loss"):
                self.learned = student.loss.start(*widths).to(runtime.device)
        with seeded(seed, "student", "defense"):
            own = runtime.generator(seed, "student", "defense")
            self.defense_term = defense.student_term(student.loss, own)
        self.stepper = student.recipe.make(self.objective.parameters(), total_steps)
        self.loss = data_parallel_loss(model, self.terms, self.learned)
        self.gradients = runtime.captured("a step of the student", self.compute_gradients) if self.can_capture else None
        self.show = runtime.captured("the student's views", self._show) if self._views_are_pure else self._show
        self.generator = runtime.generator(seed, "student", "batches")
        self.view_generator = runtime.generator(seed, "student", "views")
        self.meter = Meter()
        self.last_good = self.weights()
        self.order = torch.empty(0, dtype=torch.long, device=runtime.device)  # indices not yet used in this pass

    def train(self, pool: Pool, steps: int) -> None:
        """Take `steps` steps on batches of the pool. Each pass is shuffled anew and drops its incomplete last batch."""
        self.begin()
        for _ in self.loop("student step", steps):
            batch = self.load_batch(pool, self.next_index(pool))
            if self.gradients is not None:
                terms, gradients = self.gradients(*batch)
                self.stepper.apply(gradients)
            else:
                terms = self.loss(*batch)
                with self.runtime.gradients():
                    self.stepper.step(sum(terms.values()))
            self.meter.add(terms)

    @property
    def can_capture(self) -> bool:
        """Whether the gradients of a step depend on its batch and the networks alone."""
        pure = self.defense.loss_is_pure and self.defense_term is None and isinstance(self.student.loss, Loss)
        return pure and self.runtime.captures and distributed.team_size() == 1

    @property
    def _views_are_pure(self) -> bool:
        """Whether views and what is learned from them depend on the batch, the drawn numbers and the networks alone."""
        return type(self.defense).teach is Defense.teach and distributed.team_size() == 1

    def share_views(self, other: "Trainer") -> None:
        """Make views by the CUDA graph of another trainer that differs in its seed only."""
        if self._views_are_pure:
            self.show = other.show

    def compute_gradients(self, *batch: Tensor) -> tuple[dict[str, Tensor], list[Tensor | None]]:
        """Compute the terms of the loss for a batch, and the gradients of the trained parameters."""
        terms = self.loss(*batch)
        with self.runtime.gradients():
            gradients = torch.autograd.grad(sum(terms.values()), self.stepper.parameters, allow_unused=True)
        return detached(terms), list(gradients)

    @property
    def objective(self) -> Objective:
        """The loss as a module. Its parameters are those that are trained: the student's, and those of `learned`."""
        return Objective(self.model, self.terms, self.learned)

    def begin(self) -> None:
        """Switch the student to training mode and start a new pass over the pool."""
        self.model.train()
        self.order = self.order.new_empty(0)

    def terms(
        self, images: Tensor, teacher_logits: Tensor, fragile: Tensor, teacher_features: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Compute the terms of the student's loss for a batch, each a scalar; their sum is minimised.

        Args:
            images: (B, C, H, W).
            teacher_logits: (B, classes).
            fragile: (B,), bool.
            teacher_features: (B, D_t) if the loss compares features.
        """
        with self._record_features(self.model) as features:
            student_logits = self.answer(images)
        divergence = self.student.loss(student_logits, teacher_logits)
        if teacher_features is not None:
            divergence = divergence + self.student.loss.match(features[0], teacher_features)
        terms = self.defense.loss(student_logits, teacher_logits, divergence, fragile)
        if self.defense_term is not None:
            terms["defense"] = self.defense_term(self.answer, images, student_logits)
        return terms

    def answer(self, images: Tensor) -> Tensor:
        """Compute the student's logits (B, classes), float32, for images (B, C, H, W)."""
        with self.runtime.autocast():
            return self.model(images).float()

    @torch.no_grad()
    def load_batch(self, pool: Pool, index: Tensor) -> tuple[Tensor, ...]:
        """Return the batch at `index` as the arguments of `terms`: the images, augmented if asked for, the teacher's
        logits for these views, whether each is fragile, and the teacher's features if the loss compares them.

        All ranks draw the same batches and views; each rank takes its share of them.
        """
        count, share = len(index), distributed.rank_slice(len(index))
        unaugmented = self.student.augment == "none" and not self.defense.makes_views
        index = index[share] if unaugmented else index
        here = index.to(pool.logits.device, non_blocking=True)
        images, logits, fragile = pool.pixels(index), pool.logits[here], pool.split.fragile[here]
        if unaugmented and self.student.matches_features:
            return images, logits, fragile, self._run_teacher(images, count)[1]
        if unaugmented:
            return images, logits, fragile
        if self.defense.makes_views:
            sources, views = self.defense.views(Sources(images, logits, fragile), self.view_generator)
            return self._teach(sources, views, len(views.images))
        drawn = draw(self.student.augment, count, images.shape[2], self.view_generator)
        return self.show(self.teacher, images, logits, fragile, *drawn)

    def _show(
        self, teacher: Teacher, images: Tensor, logits: Tensor, fragile: Tensor, *drawn: Tensor
    ) -> tuple[Tensor, ...]:
        """Return the arguments of `terms` for one view of every image, as `student.augment` says.

        Args:
            teacher: the trainer's own; an argument so that a CUDA graph counts what it is shown.
            drawn: the random numbers (`dfkd.training.augment.draw`).
        """
        donor = itself = torch.arange(len(images), device=images.device)
        if self.student.augment == "cut_mix":
            shown, donor = cut_mix(images, *drawn)
        else:
            shown = augment(images, self.student.augment, *drawn)
        share = distributed.rank_slice(len(images))
        views = Views(shown, itself, donor).slice(share)
        return self._teach(Sources(images, logits, fragile), views, len(images))

    def _teach(self, sources: Sources, views: Views, count: int) -> tuple[Tensor, ...]:
        """Return the arguments of `terms` for views, with the teacher's answers to them.

        Args:
            count: number of views of all ranks together.
        """
        known = 0 if self.student.matches_features else views.plain
        answers, *features = self._run_teacher(views.images[known:], count - known)
        answers = torch.cat([sources.logits[views.base[:known]], answers]) if known else answers
        lesson = self.defense.teach(sources, views, answers)
        batch = views.images, lesson.targets, lesson.fragile, *features
        return batch if lesson.used is None else tuple(part[lesson.used] for part in batch)

    def _run_teacher(self, images: Tensor, count: int) -> tuple[Tensor, ...]:
        """Run the teacher on images: its logits, and its features if the loss compares them.

        Args:
            count: number of images that all ranks together pass to the teacher, for its count of evaluations.
        """
        watch, count_as = self._record_features(self.teacher), self.teacher.counted_as("distill")
        with watch as features, count_as, self.runtime.autocast():
            logits = self.teacher(images).float()
        self.teacher.evals["distill"] += count - len(images)  # evaluations made by the other ranks
        return logits, *features

    def _record_features(self, classifier: Classifier) -> contextlib.AbstractContextManager[list[Tensor]]:
        """Context manager: collects the features of forward passes in a list; the list stays empty if the loss does not
        compare features."""
        return watch_features(classifier.net) if self.student.matches_features else contextlib.nullcontext([])

    def read(self) -> dict[str, float]:
        """Return the mean of each loss term since the last call.

        Raises:
            NonFiniteLoss: a term is NaN or infinite; carries the student's weights at the last call with finite ones.
        """
        try:
            means = self.meter.read(distributed.mean)
        except NonFiniteLoss as error:
            error.state = self.last_good
            raise
        weights = self.weights()
        # A finite loss can have a gradient that is not finite; the weights then break here, the loss one step later.
        if all(value.isfinite().all() for value in weights.values()):
            self.last_good = weights
        return means

    def weights(self) -> dict[str, Tensor]:
        """Return a copy of the student's weights and buffers on the CPU."""
        return {key: value.detach().cpu().clone() for key, value in self.model.net.state_dict().items()}

    def next_index(self, pool: Pool) -> Tensor:
        """Return the indices of the next batch, on the device of the pool's images."""
        size = min(self.student.recipe.batch_size, len(pool))
        if len(self.order) < size:
            order = torch.randperm(len(pool), generator=self.generator, device=self.runtime.device)
            self.order = order.to(pool.images.device)
        index, self.order = self.order[:size], self.order[size:]
        return index


def steps_per_epoch(pool: Pool, recipe: Recipe) -> int:
    """Number of full batches in one pass over the pool, at least 1."""
    return max(1, len(pool) // min(recipe.batch_size, len(pool)))
