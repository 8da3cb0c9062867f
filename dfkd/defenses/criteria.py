"""Criteria: they decide which images are fragile (ID-like) and which are robust (OOD-like)."""

from abc import ABC, abstractmethod
from dataclasses import replace

import torch
from torch import Tensor, nn

from dfkd.attacks import PGD, RecordedPGD, attack_warnings, is_deterministic
from dfkd.defenses.auto_radius import AutoRadius
from dfkd.defenses.threshold import Threshold
from dfkd.machine.runtime import Runtime
from dfkd.models import Teacher
from dfkd.pool import Split


class Criterion(ABC):
    """Decides a split.

    Attributes:
        uses_real_data: whether it uses the scenario's real images: a diagnosis, not a data-free method.
        radius: radius of its attack, on the images' scale; None if it has no attack, or one radius per channel.
    """

    uses_real_data = False
    radius: float | None = None

    def check(self, network: nn.Module) -> None:  # noqa: B027 (most criteria can work with any network)
        """Raise ValueError if the criterion does not work with the teacher's network. Called before any training."""

    def start(self, runtime: Runtime) -> None:  # noqa: B027 (most criteria need nothing of it)
        """Called before the first split, of every student anew."""

    def answer(self, teacher: Teacher, images: Tensor, chunk: int) -> Tensor:
        """Compute the teacher's logits (B, classes), float32, of images that will be judged next, `chunk` images at a
        time. A criterion that measures something in the same pass overrides this."""
        return teacher.predict(images, chunk).float()

    @abstractmethod
    def split(self, teacher: Teacher, images: Tensor, logits: Tensor, generator: torch.Generator) -> Split:
        """Split a batch.

        Args:
            images: (B, C, H, W), float.
            logits: the teacher's logits for the images (B, classes).
            generator: the only source of randomness.
        """

    def guess(self, teacher: Teacher, images: Tensor, logits: Tensor, generator: torch.Generator) -> Tensor:
        """Return which images are fragile (B,), bool, where this only weights a generator's loss. The default calls
        `split`; a subclass may use a cheaper estimate."""
        return self.split(teacher, images, logits, generator).fragile

    @property
    def suspicious(self) -> Tensor | None:
        """Which classes look trapped (classes,), bool, by the images so far; None if the criterion does not say."""
        return None

    def is_robust(self, teacher: Teacher, images: Tensor, logits: Tensor, generator: torch.Generator) -> Tensor:
        """Return which images are robust (B,), bool, where they are no synthetic images of the pool. The default calls
        `split`."""
        return ~self.split(teacher, images, logits, generator).fragile

    def warnings(self) -> list[str]:
        """Return reasons not to trust the splits made so far."""
        return []


class PGDFlip(Criterion):
    """Fragile = the teacher's label flips under PGD. The score is the smallest logit margin during the attack.

    ATEsc (arXiv 2507.04119) reports that NTL teachers are adversarially fragile on ID images and robust on OOD images.

    With value or quantile, the score decides instead of the flip. Fragile then means a margin below value (0 gives the
    same split as the flip), or belonging to the share of the batch with the smallest margins. In this case every image
    is attacked for all steps, even after a flip, so that margins are comparable.

    Args:
        eps, step, steps, random_start, loss: arguments of `dfkd.attacks.PGD`; eps on the images' scale, or 'auto' for
            the radius that fits the teacher (`AutoRadius`; step must then be None).
        box: valid range of pixel values (set from the domain), None for 2-D points.
        value, quantile: arguments of `Threshold`; at most one of them.
    """

    def __init__(
        self,
        eps: float | list[float] | str,
        steps: int,
        step: float | None = None,
        random_start: bool = True,
        loss: str = "ce",
        box: tuple[float, float] | None = None,
        value: float | None = None,
        quantile: float | None = None,
    ):
        if isinstance(eps, str) and eps != "auto":
            raise ValueError(f"eps must be a number such as 5/255, a list of them, or auto, got '{eps}'")
        if eps == "auto" and step is not None:
            raise ValueError(f"step must be null with eps=auto, got {step}")
        self.auto = AutoRadius() if eps == "auto" else None
        self.attack = PGD(1.0 if eps == "auto" else eps, step, steps, random_start, loss, box)
        self.radius = eps if isinstance(eps, int | float) else None
        by_flip = value is None and quantile is None
        self.threshold = None if by_flip else Threshold(value, quantile, "low")
        self.run_attack = PGD.attack
        self.attacked = 0
        self.dead: Tensor | float = 0.0
        self.saturated: Tensor | float = 0.0
        self.deterministic: bool | None = None

    def start(self, runtime: Runtime) -> None:
        if runtime.captures:
            self.run_attack = RecordedPGD(runtime)

    def split(self, teacher: Teacher, images: Tensor, logits: Tensor, generator: torch.Generator) -> Split:
        if self.deterministic is None:
            self.deterministic = is_deterministic(teacher, images[:64])
        by_flip = self.threshold is None
        if self.auto is not None:
            self.auto.observe(self.attack, teacher, images, logits, generator)
            self.attack = replace(self.attack, eps=self.auto.eps)
        result = self.run_attack(self.attack, teacher, images, generator, logits, stop_when_flipped=by_flip)
        self.attacked += len(images)
        self.dead = self.dead + result.dead.sum()
        self.saturated = self.saturated + result.saturated.sum()
        return Split(result.flipped if by_flip else self.threshold(result.margin), result.margin)

    def warnings(self) -> list[str]:
        if not self.attacked:
            return []
        dead, saturated = float(self.dead) / self.attacked, float(self.saturated) / self.attacked
        return attack_warnings(dead, saturated, self.deterministic)


class Control(Criterion):
    """A criterion derived from another criterion, `of`."""

    def __init__(self, of: Criterion):
        self.of, self.uses_real_data, self.radius = of, of.uses_real_data, of.radius

    def check(self, network: nn.Module) -> None:
        self.of.check(network)

    def start(self, runtime: Runtime) -> None:
        self.of.start(runtime)

    def answer(self, teacher: Teacher, images: Tensor, chunk: int) -> Tensor:
        return self.of.answer(teacher, images, chunk)

    @property
    def suspicious(self) -> Tensor | None:
        return self.of.suspicious

    def warnings(self) -> list[str]:
        return self.of.warnings()


class Inverted(Control):
    """Control: the opposite of another criterion."""

    def split(self, teacher: Teacher, images: Tensor, logits: Tensor, generator: torch.Generator) -> Split:
        split = self.of.split(teacher, images, logits, generator)
        return Split(~split.fragile, -split.score)

    def is_robust(self, teacher: Teacher, images: Tensor, logits: Tensor, generator: torch.Generator) -> Tensor:
        return ~self.of.is_robust(teacher, images, logits, generator)


class Random(Control):
    """Control: the same number of fragile images as another criterion gives, chosen at random."""

    def split(self, teacher: Teacher, images: Tensor, logits: Tensor, generator: torch.Generator) -> Split:
        fragile = self.of.split(teacher, images, logits, generator).fragile
        score = torch.rand(len(images), generator=generator, device=images.device)
        return Split(fragile[score.argsort()], score)

    def is_robust(self, teacher: Teacher, images: Tensor, logits: Tensor, generator: torch.Generator) -> Tensor:
        robust = self.of.is_robust(teacher, images, logits, generator)
        return robust[torch.randperm(len(images), generator=generator, device=images.device)]


class All(Criterion):
    """Control: every image is fragile, so that none is used for forgetting."""

    def split(self, teacher: Teacher, images: Tensor, logits: Tensor, generator: torch.Generator) -> Split:
        return Split.everything(images)
