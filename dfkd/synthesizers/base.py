"""The contract of a synthesizer, and the batch of images that it makes."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from dfkd.machine.runtime import Runtime
from dfkd.models import Teacher
from dfkd.resume.loop import Loop, plain

# What a defense does to the adversarial term of a generator: images (B, C, H, W), the teacher's logits (B, classes) for
# them -> weights (B,).
Steer = Callable[[Tensor, Tensor], Tensor]
# A term a defense adds to a generator's loss: images (B, C, H, W), the teacher's logits (B, classes) for them, both
# with gradients -> a scalar, weighted already.
SynthesisTerm = Callable[[Tensor, Tensor], Tensor]


@dataclass
class Synthetic:
    """A batch of synthetic images.

    Attributes:
        images: (B, C, H, W), float, nominally in [0, 1], or uint8. Methods that optimise in the teacher's normalised
            space may leave the box.
        columns: more per-image values (B,), kept in the pool and selectable there (`student.keep`).
        metrics: of making them: scalar tensors, left on the device (reading them is the caller's business).
        logits: the teacher's answers to them (B, classes), where an offline synthesizer has them already; else the
            teacher is asked once more.
    """

    images: Tensor
    columns: dict[str, Tensor] = field(default_factory=dict)
    metrics: dict[str, Tensor] = field(default_factory=dict)
    logits: Tensor | None = None

    def to(self, device: torch.device | str) -> "Synthetic":
        columns, metrics = ({k: v.to(device) for k, v in part.items()} for part in (self.columns, self.metrics))
        logits = None if self.logits is None else self.logits.to(device)
        return Synthetic(self.images.to(device), columns, metrics, logits)


class Synthesizer(ABC):
    """Makes images from a teacher alone, in rounds.

    Offline synthesizers make a whole pool before any student exists; the pool is shared by all students of a sweep.
    Online ones make a batch per round, between the student's training steps, and may look at the student.

    Args:
        rounds: how many batches to make.

    Attributes:
        online: whether the student is trained while the images are made.
        columns: names of the per-image values it gives beside the images.
        at_once: how many rounds it takes in one call: more than one only where that does not change the images.
        independent: whether a round's images depend on no other round, and on no random numbers but those of its
            `stream`: several ranks can then make rounds beside each other.
        takes_term: whether it adds `term` to the loss of its images.
        term: what a defense adds to that loss, or None; set before the first round.
        needs_box: whether its images need a range of valid pixel values, which points and embeddings do not have.
        generator: the network that its images come from, or None where there is none.
        loop: hands out the numbers of a long loop inside `synthesize`, between which a run can be stopped.
        warm_up: the first so many rounds of an online synthesizer only make images; the student's training (and its
            learning-rate schedule) starts after them.

    A killed run goes on between two rounds, with a synthesizer made anew and started, and everything that is found in
    its attributes put back: numbers, tensors, networks, optimizers, schedulers, random generators, containers and
    objects of them (`dfkd.resume.state`). Make networks and optimizers in `start`, keep nothing in closures between
    rounds; what cannot be put back is named in a warning, and such a stage is saved only when it is done.
    """

    online = False
    columns: tuple[str, ...] = ()
    at_once = 1
    independent = False
    takes_term = False
    needs_box = False
    generator: nn.Module | None = None
    term: SynthesisTerm | None = None
    loop: Loop = staticmethod(plain)
    warm_up = 0

    def __init__(self, rounds: int):
        if rounds < 1:
            raise ValueError(f"rounds must be at least 1, got {rounds}")
        self.rounds = rounds

    def check(self, network: nn.Module) -> None:  # noqa: B027 (most synthesizers can work with any network)
        """Raise ValueError if the teacher's network cannot serve this synthesizer; called before any work."""

    def warnings(self, network: nn.Module) -> list[str]:
        """What a user should know about this synthesizer on this network before time is spent."""
        return []

    def start(self, runtime: Runtime, seed: int) -> None:
        """Called once, before the first round."""
        self.runtime, self.seed = runtime, seed

    def stream(self, round: int, purpose: str = "images") -> torch.Generator:
        """The random stream of one round: independent of which rounds are made together, or before."""
        return self.runtime.generator(self.seed, "synthesis", purpose, round)

    @abstractmethod
    def synthesize(
        self, rounds: range, teacher: Teacher, student: nn.Module | None = None, steer: Steer | None = None
    ) -> Synthetic:
        """Make the images of the given rounds, in order.

        Args:
            teacher: frozen, in evaluation mode.
            student: in training, for online synthesizers; one that looks at it puts it into evaluation mode and back.
            steer: weights of the adversarial term per image, or None for 1.
        """
