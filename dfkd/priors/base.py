"""Priors: weighted terms that say what an image should look like."""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor, nn

from dfkd.models import Teacher, batch_norms, classifier_head, watch_batch_norms, watch_features
from dfkd.models.hooks import BatchNormStatistics


@dataclass
class View:
    """What a prior may look at: one forward pass of S independent sets of N images each.

    Attributes:
        inputs: the teacher's normalised inputs (S * N, C, H, W).
        logits: the teacher's logits (S * N, classes), float32.
        sets: S. Every term is taken per set, so that optimising many sets at once is the same as one after another.
        statistics: of every BatchNorm layer's input, where a term asked for them.
        features: the teacher's penultimate features (S * N, D), float32, where a term asked for them.
        normalize: the teacher's: images in [0, 1] to inputs.
    """

    inputs: Tensor
    logits: Tensor
    sets: int = 1
    statistics: list[BatchNormStatistics] = field(default_factory=list)
    features: Tensor | None = None
    normalize: Callable[[Tensor], Tensor] = lambda images: images


class PriorTerm(ABC):
    """One term.

    Args:
        weight: factor of the term in the loss; terms of weight 0 are skipped.

    Attributes:
        needs_batch_norm: whether it compares BatchNorm statistics.
        needs_features: whether it looks at the teacher's penultimate features.
        needs_neighbours: whether it compares neighbouring pixels, which points and embeddings do not have.
        remembers: whether it carries something from round to round, which `start` forgets.
    """

    needs_batch_norm = False
    needs_features = False
    needs_neighbours = False
    remembers = False

    def __init__(self, weight: float = 1.0):
        if weight < 0:
            raise ValueError(f"a prior's weight must not be negative, got {weight}")
        self.weight = weight

    @abstractmethod
    def __call__(self, view: View) -> Tensor:
        """The unweighted term of every set (S,)."""

    def start(self) -> None:  # noqa: B027 (most terms have no memory)
        """Forget everything: called when a synthesis starts, before its first round."""

    def remember(self, view: View) -> None:  # noqa: B027
        """Called once a round, with the last look at the round's images."""


class Prior:
    """The weighted prior terms of a synthesizer, by name."""

    def __init__(self, terms: dict[str, PriorTerm]):
        self.terms = {name: term for name, term in terms.items() if term.weight > 0}

    @property
    def needs_batch_norm(self) -> bool:
        return any(term.needs_batch_norm for term in self.terms.values())

    @property
    def needs_features(self) -> bool:
        return any(term.needs_features for term in self.terms.values())

    @property
    def memories(self) -> list[str]:
        """Names of the terms that carry something from round to round."""
        return [name for name, term in self.terms.items() if term.remembers]

    def start(self) -> None:
        """A synthesis starts: its terms forget everything."""
        for term in self.terms.values():
            term.start()

    def remember(self, view: View) -> None:
        """A round ends: its terms may remember the last look at its images."""
        for term in self.terms.values():
            term.remember(view)

    def check(self, network: nn.Module) -> None:
        """Raise ValueError if a term needs something that the teacher's network does not have."""
        if self.needs_batch_norm and not batch_norms(network):
            names = ", ".join(name for name, term in self.terms.items() if term.needs_batch_norm)
            raise ValueError(
                f"prior '{names}' compares BatchNorm statistics, but the teacher's network has no BatchNorm layer; "
                f"drop it (~prior.{names.split(', ')[0]}) or choose a teacher with BatchNorm (cnn_bn, resnet18, ...)"
            )
        for name in (name for name, term in self.terms.items() if term.needs_features):
            try:
                classifier_head(network)
            except ValueError as error:
                raise ValueError(
                    f"prior '{name}' needs the teacher's features: {error}; or drop ~prior.{name}"
                ) from error

    def look(self, teacher: Teacher, inputs: Tensor, sets: int = 1) -> View:
        """One forward pass of `sets` equally large sets of normalised inputs, watched as far as the terms need it."""
        nothing = contextlib.nullcontext([])
        norms = watch_batch_norms(teacher.net, sets) if self.needs_batch_norm else nothing
        last = watch_features(teacher.net) if self.needs_features else nothing
        with norms as statistics, last as features:
            logits = teacher.answer(inputs)
        return View(inputs, logits.float(), sets, statistics, features[0] if features else None, teacher.normalize)

    def __call__(self, view: View) -> dict[str, Tensor]:
        """The weighted terms of every set, by name, each (S,)."""
        return {name: term.weight * term(view) for name, term in self.terms.items()}
