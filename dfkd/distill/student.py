"""The student: a network, how it is trained, and the training steps on a pool."""

import contextlib
from collections.abc import Callable

import torch
from torch import Tensor, nn

from dfkd.defenses import Defense
from dfkd.distill.feature_losses import FeatureLoss
from dfkd.errors import NonFiniteLoss
from dfkd.machine import distributed
from dfkd.machine.data_parallel import Objective, replicated
from dfkd.machine.runtime import Runtime, seeded
from dfkd.models import Classifier, Teacher, classifier_head, watch_features
from dfkd.pool import Pool
from dfkd.recipe import Recipe
from dfkd.resume.loop import Loop, plain
from dfkd.training.augment import AUGMENTATIONS, augment, cut_mix
from dfkd.training.meter import Meter

VIEWS = (*AUGMENTATIONS, "cut_mix")


class Student:
    """A student's network and recipe (the group `student`).

    Args:
        network: to be trained from scratch.
        recipe: optimiser, schedule, batch size.
        loss: of every image, a `dfkd.distill.Loss` or any function (student logits, teacher logits) -> (B,).
        epochs: passes over a finished pool (offline synthesizers).
        steps: optimisation steps a round (online synthesizers).
        capacity: how many of the newest images an online pool keeps; None keeps everything.
        keep: column -> [low, high]: train only on the images of a finished pool within these ranges, such as
            CAKE's eps.
        augment: 'none', 'shift', 'crop_flip' or 'cut_mix': a random view of every image in every step. The teacher
            answers to the view anew (counted as 'distill'); a defense splits an image once, when it enters the pool,
            and a view is robust where the teacher still gives it the label of a robust image it was made from.
        replicas: so many students are trained on a finished pool, each with a seed and a cell of its own
            (`dfkd.config.cell.replicas`); this is one of them.

    Raises:
        ValueError: neither epochs nor steps is given, one is below 1, loss is none, or augment is another word.
    """

    def __init__(
        self,
        network: nn.Module,
        recipe: Recipe,
        loss: Callable[[Tensor, Tensor], Tensor],
        epochs: int | None = None,
        steps: int | None = None,
        capacity: int | None = None,
        keep: dict[str, list[float]] | None = None,
        augment: str = "none",
        replicas: int = 1,
    ):
        if epochs is None and steps is None:
            raise ValueError("a student needs epochs (for a finished pool) or steps (a round, online)")
        for name, value in (("epochs", epochs), ("steps", steps), ("capacity", capacity), ("replicas", replicas)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not callable(loss):
            raise ValueError(f"loss must be a loss, as loss@student.loss=kl chooses it, got {loss!r}")
        for name, bounds in (keep or {}).items():
            if not isinstance(bounds, list | tuple) or len(bounds) != 2 or bounds[0] > bounds[1]:
                raise ValueError(f"keep.{name} must be [low, high], got {bounds}")
        if augment not in VIEWS:
            raise ValueError(f"augment must be one of {', '.join(VIEWS)}, got '{augment}'")
        self.network, self.recipe, self.loss, self.augment = network, recipe, loss, augment
        self.epochs, self.steps, self.capacity, self.keep = epochs, steps, capacity, keep or {}
        self.replicas = replicas

    @property
    def matches_features(self) -> bool:
        """Whether the loss compares penultimate features, too."""
        return isinstance(self.loss, FeatureLoss)

    def check(self, teacher: nn.Module) -> None:
        """Raise ValueError if the loss compares features that one of the networks does not have."""
        for whose, network in (("teacher", teacher), ("student", self.network)) if self.matches_features else ():
            try:
                classifier_head(network)
            except ValueError as error:
                raise ValueError(f"this loss compares features, and of the {whose}'s {error}") from error


class Trainer:
    """Takes distillation steps on a pool.

    Args:
        total_steps: length of the whole training, for the learning-rate schedule.
        teacher: answers to augmented images, and gives the features that a loss compares; else not needed.
        loop: hands out the numbers of the steps, between which a run can be stopped.

    Raises:
        ValueError: the student is trained on augmented images or features, and no teacher is given.

    Attributes:
        learned: what a loss of features trains beside the student (`FeatureLoss.start`), or None.
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
        loop: Loop = plain,
    ):
        if student.augment != "none" and teacher is None:
            raise ValueError(f"augment='{student.augment}' needs the teacher, whose answers depend on the view")
        if student.matches_features and teacher is None:
            raise ValueError(f"{type(student.loss).__name__} needs the teacher, whose features it compares")
        self.model, self.student, self.defense, self.runtime, self.teacher = model, student, defense, runtime, teacher
        self.loop, self.learned = loop, None
        if student.matches_features:
            widths = (classifier_head(classifier.net).in_features for classifier in (model, teacher))
            with seeded(seed, "student", "loss"):
                self.learned = student.loss.start(*widths).to(runtime.device)
        self.stepper = student.recipe.make(self.objective.parameters(), total_steps)
        self.loss = replicated(model, self.terms, self.learned)
        self.generator = runtime.generator(seed, "student", "batches")
        self.views = runtime.generator(seed, "student", "views")
        self.meter = Meter()
        self.last_good = self.weights()
        self.order = torch.empty(0, dtype=torch.long, device=runtime.device)  # of this pass over the pool, what is left

    def train(self, pool: Pool, steps: int) -> None:
        """Take `steps` steps on batches of the pool, shuffled anew; the ragged last batch of each pass is left out."""
        self.begin()
        for _ in self.loop("student step", steps):
            terms = self.loss(*self.view(pool, self.batch(pool)))
            self.stepper.step(sum(terms.values()))
            self.meter.add(terms)

    @property
    def objective(self) -> Objective:
        """The loss as a module: its parameters are all that is trained."""
        return Objective(self.model, self.terms, self.learned)

    def begin(self) -> None:
        """Prepare for some steps: training mode, and a new pass over the pool."""
        self.model.train()
        self.order = self.order.new_empty(0)

    def terms(
        self, images: Tensor, teacher_logits: Tensor, fragile: Tensor, teacher_features: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return the terms of the student's loss for a batch, each a scalar; their sum is minimised."""
        with self.runtime.autocast(), self._watched(self.model) as features:
            student_logits = self.model(images).float()
        divergence = self.student.loss(student_logits, teacher_logits)
        if teacher_features is not None:
            divergence = divergence + self.student.loss.match(features[0], teacher_features)
        return self.defense.loss(student_logits, teacher_logits, divergence, fragile)

    @torch.no_grad()
    def view(self, pool: Pool, index: Tensor) -> tuple[Tensor, ...]:
        """The chosen images as the student sees them, the teacher's logits for just that, which are fragile, and the
        teacher's features where the loss compares them.

        Several ranks draw the same batches and views, and take each its share of them.
        """
        count, mine, plain = len(index), distributed.share(len(index)), self.student.augment == "none"
        index = index[mine] if plain else index
        here = index.to(pool.logits.device, non_blocking=True)
        images, logits, fragile = pool.pixels(index), pool.logits[here], pool.split.fragile[here]
        if plain and self.student.matches_features:
            return images, logits, fragile, self._ask(images, count)[1]
        if plain:
            return images, logits, fragile
        label, donor = logits.argmax(1), torch.arange(len(here), device=here.device)
        if self.student.augment == "cut_mix":
            images, donor = cut_mix(images, self.views)
        else:
            images = augment(images, self.student.augment, self.views)
        images, donor = images[mine], donor[mine]
        logits, *features = self._ask(images, count)
        answer = logits.argmax(1)
        robust = (~fragile[mine] & (answer == label[mine])) | (~fragile[donor] & (answer == label[donor]))
        return images, logits, ~robust, *features

    def _ask(self, images: Tensor, count: int) -> tuple[Tensor, ...]:
        """The teacher's logits for images, and its features where the loss compares them.

        Args:
            count: images that all ranks ask about together.
        """
        with self._watched(self.teacher) as features, self.teacher.counted_as("distill"), self.runtime.autocast():
            logits = self.teacher(images).float()
        self.teacher.evals["distill"] += count - len(images)  # by the other ranks
        return logits, *features

    def _watched(self, classifier: Classifier) -> contextlib.AbstractContextManager[list[Tensor]]:
        """Records the features of a forward pass inside the block where the loss compares them, else nothing."""
        return watch_features(classifier.net) if self.student.matches_features else contextlib.nullcontext([])

    def read(self) -> dict[str, float]:
        """Mean terms since the last reading.

        Raises:
            NonFiniteLoss: with the student's state at the last reading that was finite.
        """
        try:
            means = self.meter.read(distributed.mean)
        except NonFiniteLoss as error:
            error.state = self.last_good
            raise
        weights = self.weights()
        # a loss can be finite and its gradient not: the next step's loss will say so
        if all(value.isfinite().all() for value in weights.values()):
            self.last_good = weights
        return means

    def weights(self) -> dict[str, Tensor]:
        """A copy of the student's weights and buffers, in memory."""
        return {key: value.detach().cpu().clone() for key, value in self.model.net.state_dict().items()}

    def batch(self, pool: Pool) -> Tensor:
        """The next batch of the pool, as an index that lies where its images do."""
        size = min(self.student.recipe.batch_size, len(pool))
        if len(self.order) < size:
            order = torch.randperm(len(pool), generator=self.generator, device=self.runtime.device)
            self.order = order.to(pool.images.device)
        index, self.order = self.order[:size], self.order[size:]
        return index


def steps_per_epoch(pool: Pool, recipe: Recipe) -> int:
    """Full batches in one pass over the pool."""
    return max(1, len(pool) // min(recipe.batch_size, len(pool)))
