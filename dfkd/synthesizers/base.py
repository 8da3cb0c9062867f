"""The base class of synthesizers, and the batch of images that they return."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from dfkd.errors import refuse_old_names
from dfkd.machine.runtime import Runtime
from dfkd.models import Teacher
from dfkd.resume.loop import Loop, plain_loop

# A defense's weights of a generator's adversarial term: images (B, C, H, W), the teacher's logits for them (B, classes)
# -> weights (B,).
Steer = Callable[[Tensor, Tensor], Tensor]
# A defense's additional term of a generator's loss: images (B, C, H, W), the teacher's logits for them (B, classes),
# both with gradients -> a scalar that includes its weight.
SynthesisTerm = Callable[[Tensor, Tensor], Tensor]


def known(weights: Tensor) -> Steer:
    """Return a `Steer` that was asked already."""
    return lambda images, logits: weights


@dataclass
class Synthetic:
    """A batch of synthetic images.

    Attributes:
        images: (B, C, H, W), float, nominally in [0, 1], or uint8. Methods that optimise in the teacher's normalised
            space may leave the range.
        columns: further values per image (B,), by name. The pool stores them, and `student.keep` selects by them.
        metrics: scalar tensors that describe the synthesis, on the device.
        logits: the teacher's logits for the images (B, classes), if an offline synthesizer has computed them; otherwise
            the teacher is run on the images once more.
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

    Offline synthesizers make a whole pool before any student exists; all students of a sweep share the pool. Online
    synthesizers make one batch per round, between the student's training steps, and may use the student.

    Args:
        rounds: number of rounds, at least 1.

    Attributes:
        online: whether the student is trained while the images are made.
        columns: names of the per-image values returned with the images (`Synthetic.columns`).
        rounds_per_call: number of rounds per call of `synthesize`; more than 1 only if that does not change the images.
        independent: whether the images of a round depend on no other round, and on no random numbers except those of
            its `stream`. Several ranks can then make rounds in parallel.
        takes_term: whether `term` is added to the loss of the images.
        term: a defense's additional term of that loss, or None; set before the first round.
        needs_box: whether the images need a range of valid pixel values; points and embeddings have none.
        generator: the network that generates the images, or None.
        loop: yields the numbers of a long loop inside `synthesize`; the run can be stopped between two of them.
        warm_up: number of first rounds in which an online synthesizer only makes images. The student's training and its
            learning-rate schedule start after them.

    A killed run continues between two rounds. The synthesizer is then constructed and started again, and its attributes
    are restored: numbers, tensors, networks, optimizers, schedulers, random generators, and containers and objects of
    them (`dfkd.resume.state`). So create networks and optimizers in `start`, and store nothing in closures between
    rounds. An attribute that cannot be restored is named in a warning, and such a stage is saved only when finished.
    """

    online = False
    columns: tuple[str, ...] = ()
    rounds_per_call = 1
    independent = False
    takes_term = False
    needs_box = False
    generator: nn.Module | None = None
    term: SynthesisTerm | None = None
    loop: Loop = staticmethod(plain_loop)
    warm_up = 0

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        refuse_old_names(cls, {"at_once": "rounds_per_call"})

    def __init__(self, rounds: int):
        if rounds < 1:
            raise ValueError(f"rounds must be at least 1, got {rounds}")
        self.rounds = rounds

    def check(self, network: nn.Module) -> None:  # noqa: B027 (most synthesizers can work with any network)
        """Raise ValueError if this synthesizer does not work with the teacher's network. Called before any training."""

    def warnings(self, network: nn.Module) -> list[str]:
        """Return warnings about this synthesizer on this network; printed before any training."""
        return []

    def start(self, runtime: Runtime, seed: int) -> None:
        """Called once, before the first round."""
        self.runtime, self.seed = runtime, seed

    def try_out(self, teacher: Teacher) -> list[str]:
        """Return warnings about this synthesizer with the trained teacher, after a trial of seconds. Called once, after
        `start`, before an offline synthesizer makes its pool. It must not change what the synthesizer makes."""
        return []

    def stream(self, round: int, purpose: str = "images") -> torch.Generator:
        """Return the random stream of one round. It does not depend on other rounds."""
        return self.runtime.generator(self.seed, "synthesis", purpose, round)

    @abstractmethod
    def synthesize(
        self, rounds: range, teacher: Teacher, student: nn.Module | None = None, steer: Steer | None = None
    ) -> Synthetic:
        """Make the images of the given rounds, in order.

        Args:
            teacher: frozen, in evaluation mode.
            student: the student in training mode, for online synthesizers. A synthesizer that uses it has to switch it
                to evaluation mode and back.
            steer: weights of the adversarial term per image; None means 1.
        """
