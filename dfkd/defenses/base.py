"""The base class of defenses, which may split the pool, change the loss and the synthesis, and finish the student."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dfkd.audit import Looks
from dfkd.defenses.views import Lesson, Sources, Views, inherits_robustness
from dfkd.machine.runtime import Runtime
from dfkd.models import Classifier, Teacher
from dfkd.pool import Pool, Split
from dfkd.resume.loop import Loop, plain_loop
from dfkd.synthesizers.base import Steer, SynthesisTerm, Synthesizer

# A defense's additional term of the student's loss: the student as a function from images (B, C, H, W) to logits
# (B, classes), the images of a batch, the student's logits for them -> a scalar that includes its weight.
StudentTerm = Callable[[Callable[[Tensor], Tensor], Tensor, Tensor], Tensor]


class Defense:
    """Base class of defenses. By itself it changes nothing: every image is distilled (`defense=none`)."""

    @property
    def uses_real_data(self) -> bool:
        """Whether the splits depend on the scenario's real images: a diagnosis, not a data-free method."""
        return False

    @property
    def radius(self) -> float | None:
        """Radius of the attack that decides the split, on the images' scale; None if no attack does."""
        return None

    @property
    def mean_loss(self) -> bool:
        """Whether every term of the student's loss is a mean over a batch of values that each depend on one image only.
        Several ranks can then share a batch."""
        return type(self).loss is Defense.loss and not self.has_student_term

    @property
    def loss_is_pure(self) -> bool:
        """Whether the loss depends on its arguments alone. It can then be recorded once and replayed (CUDA graphs)."""
        return type(self).loss is Defense.loss

    @property
    def has_student_term(self) -> bool:
        """Whether there may be a `student_term`. Students with one are not trained side by side."""
        return type(self).student_term is not Defense.student_term

    @property
    def makes_views(self) -> bool:
        """Whether the defense makes the views that the student sees (`views`), instead of `student.augment`."""
        return type(self).views is not Defense.views

    @property
    def needs_audit(self) -> bool:
        """Whether the defense is told what an audit of the teacher saw (`heed`), before anything is split."""
        return False

    def heed(self, looks: Looks) -> None:
        """Take note of what an audit of the teacher saw. Called once before the first split if `needs_audit`."""

    def stand_in(self, teacher: Teacher, rounds: int | None) -> Teacher:
        """Return the network whose answers the student learns, and for which images are made: the teacher itself, or a
        copy that the defense changes. Called once before the first round, after `heed`; it is the `teacher` of all
        methods that are called later.

        Args:
            rounds: number of rounds of an online synthesizer; None for a finished pool.
        """
        return teacher

    def check(self, network: nn.Module, synthesizer: Synthesizer) -> None:
        """Raise ValueError if this defense does not work with the teacher's network or with the synthesizer. Called
        before any training."""

    def start(self, runtime: Runtime) -> None:
        """Called before the first split, of every student anew."""

    def answer(self, teacher: Teacher, images: Tensor, chunk: int) -> Tensor:
        """Compute the teacher's logits (B, classes), float32, of new images, which are split next.

        Args:
            chunk: number of images at a time.
        """
        return teacher.predict(images, chunk).float()

    def split(self, teacher: Teacher, images: Tensor, logits: Tensor, generator: torch.Generator) -> Split:
        """Split images into ID-like (fragile) and OOD-like (robust) ones; here all are fragile.

        Args:
            images: (B, C, H, W), float.
            logits: the teacher's logits for the images (B, classes).
            generator: the only source of randomness.
        """
        return Split.everything(images)

    def explore(
        self, number: int, teacher: Teacher, student: Classifier, pool: Pool, generator: torch.Generator
    ) -> dict[str, float]:
        """Look for what the student should be warned of. Called in every round before the student's steps.

        Args:
            number: number of the round.
            pool: the images, with their splits.
            generator: the only source of randomness.

        Returns:
            metrics for the log.
        """
        return {}

    def views(self, sources: Sources, generator: torch.Generator) -> tuple[Sources, Views]:
        """Make the views of a batch that the student sees; here every image as it is. Called only if a subclass defines
        it (`makes_views`); then `student.augment` is not used.

        Args:
            sources: the images of the batch.
            generator: the only source of randomness.

        Returns:
            (the sources, possibly with further ones behind them; the views made of them).
        """
        itself = torch.arange(len(sources), device=sources.images.device)
        return sources, Views(sources.images, itself, itself, plain=len(sources))

    def teach(self, sources: Sources, views: Views, logits: Tensor) -> Lesson:
        """Decide what the student learns from views. By default it learns the teacher's answers, and a view is robust
        if the teacher gives it the class of a robust source of it.

        Args:
            sources: what the views were made of.
            logits: the teacher's logits for the views (B, classes).
        """
        return Lesson(logits, ~inherits_robustness(sources, views, logits.argmax(1)))

    def loss(
        self, student_logits: Tensor, teacher_logits: Tensor, divergence: Tensor, fragile: Tensor
    ) -> dict[str, Tensor]:
        """Compute the terms of the student's loss, each a scalar; their sum is minimised.

        Args:
            student_logits, teacher_logits: (B, C).
            divergence: the distillation loss of every image (B,).
            fragile: (B,), bool.
        """
        return {"kd": divergence.mean()}

    def student_term(self, loss: Callable[[Tensor, Tensor], Tensor], generator: torch.Generator) -> StudentTerm | None:
        """Return a further term of the student's loss, which may show the student other images; or None.

        The term is called once in every step of the training, before the student's optimizer. It may train networks of
        its own: a resumed run restores its attributes. Called once for every student, before its training, with torch's
        global random numbers seeded.

        Args:
            loss: the distillation loss per image, as in `finish`.
            generator: the only source of randomness in calls of the term; on the device of the images.
        """
        return None

    def steer(self, teacher: Teacher, generator: torch.Generator) -> Steer | None:
        """Return a function that weights a generator's adversarial term per image, or None for no weights."""
        return None

    def synthesis_term(self, teacher: Teacher, generator: torch.Generator) -> SynthesisTerm | None:
        """Return a further term of a generator's loss, or None. Called only if the synthesizer accepts one
        (`Synthesizer.takes_term`)."""
        return None

    def finish(
        self,
        student: Classifier,
        teacher: Teacher,
        pool: Pool,
        loss: Callable[[Tensor, Tensor], Tensor],
        generator: torch.Generator,
        loop: Loop = plain_loop,
    ) -> dict[str, float]:
        """Train the student further after the last round.

        Args:
            pool: images that the student was distilled from (an online pool may have dropped the oldest).
            loss: the distillation loss per image: (student logits, teacher logits) -> (B,). A `FeatureLoss` gives only
                its logit term.
            generator: the only source of randomness.
            loop: yields the numbers of a long loop; the run can be stopped between two of them.

        Returns:
            metrics; empty if the student was not trained.

        Raises:
            NonFiniteLoss: a loss became NaN or infinite.
        """
        return {}

    def warnings(self) -> list[str]:
        """Return reasons not to trust the splits made so far."""
        return []
