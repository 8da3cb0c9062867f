"""The base class of prior terms, and the weighted sum of several terms."""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from dfkd.machine.capture import is_ours
from dfkd.models import (
    Teacher,
    attention_layers,
    batch_norms,
    classifier_head,
    watch_batch_norms,
    watch_features,
    watch_patches,
)
from dfkd.models.hooks import BatchNormStatistics


@dataclass
class TeacherPass:
    """The inputs of prior terms: one forward pass of the teacher on S independent sets of N images each.

    Attributes:
        inputs: the teacher's normalised inputs (S * N, C, H, W).
        logits: the teacher's logits (S * N, classes), float32.
        sets: S. Terms are computed per set, so that optimising sets in parallel or one after another is equivalent.
        statistics: input statistics of every BatchNorm layer; empty unless a term needs them.
        features: the teacher's penultimate features (S * N, D), float32; None unless a term needs them.
        patches: what every self-attention layer of a vision transformer makes of the patches (S * N, P, D), float32;
            empty unless a term needs them.
        normalize: the teacher's normalisation, images in [0, 1] -> inputs.
    """

    inputs: Tensor
    logits: Tensor
    sets: int = 1
    statistics: list[BatchNormStatistics] = field(default_factory=list)
    features: Tensor | None = None
    patches: list[Tensor] = field(default_factory=list)
    normalize: Callable[[Tensor], Tensor] = lambda images: images

    def detached(self) -> "TeacherPass":
        """Return the same numbers without their graph."""
        return TeacherPass(
            self.inputs.detach(),
            self.logits.detach(),
            self.sets,
            [replace(s, mean=s.mean.detach(), var=s.var.detach()) for s in self.statistics],
            None if self.features is None else self.features.detach(),
            [patches.detach() for patches in self.patches],
            self.normalize,
        )


class PriorTerm(ABC):
    """One term of a prior.

    Args:
        weight: factor of the term in the loss, at least 0; terms of weight 0 are skipped.

    Attributes:
        needs_batch_norm: whether it compares BatchNorm statistics.
        needs_features: whether it uses the teacher's penultimate features.
        needs_patches: whether it compares the patches of a vision transformer.
        needs_neighbours: whether it compares neighbouring pixels, which points and embeddings do not have.
        remembers: whether it carries state from round to round; `start` resets the state.
    """

    needs_batch_norm = False
    needs_features = False
    needs_patches = False
    needs_neighbours = False
    remembers = False

    def __init__(self, weight: float = 1.0):
        if weight < 0:
            raise ValueError(f"a prior's weight must not be negative, got {weight}")
        self.weight = weight

    @abstractmethod
    def __call__(self, teacher_pass: TeacherPass) -> Tensor:
        """Compute the unweighted term of every set (S,)."""

    def start(self) -> None:  # noqa: B027 (most terms have no memory)
        """Reset the state. Called when a synthesis starts, before its first round."""

    def remember(self, teacher_pass: TeacherPass) -> None:  # noqa: B027
        """Update the state. Called once per round, with the last forward pass on the round's images."""


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
    def needs_patches(self) -> bool:
        return any(term.needs_patches for term in self.terms.values())

    @property
    def memories(self) -> list[str]:
        """Names of the terms that carry state from round to round."""
        return [name for name, term in self.terms.items() if term.remembers]

    @property
    def is_pure(self) -> bool:
        """Whether all terms depend on the teacher's forward pass alone, and on tensors that keep their place in memory:
        those of this package. A user's own term may depend on anything."""
        return all(is_ours(type(term)) for term in self.terms.values())

    def start(self) -> None:
        """Reset the state of all terms, at the start of a synthesis."""
        for term in self.terms.values():
            term.start()

    def remember(self, teacher_pass: TeacherPass) -> None:
        """Update the state of all terms with the last forward pass on a round's images."""
        for term in self.terms.values():
            term.remember(teacher_pass)

    def check(self, network: nn.Module) -> None:
        """Raise ValueError if a term needs BatchNorm layers, patches or features that the teacher's network lacks."""
        if self.needs_batch_norm and not batch_norms(network):
            names = ", ".join(name for name, term in self.terms.items() if term.needs_batch_norm)
            raise ValueError(
                f"prior '{names}' compares BatchNorm statistics, but the teacher's network has no BatchNorm layer; "
                f"drop it (~prior.{names.split(', ')[0]}) or choose a teacher with BatchNorm (cnn_bn, resnet18, ...)"
            )
        if self.needs_patches and not attention_layers(network):
            names = ", ".join(name for name, term in self.terms.items() if term.needs_patches)
            raise ValueError(
                f"prior '{names}' compares the patches of a vision transformer, which the teacher's network is not; "
                f"drop it (~prior.{names.split(', ')[0]}) or choose a teacher that is one (vit)"
            )
        for name in (name for name, term in self.terms.items() if term.needs_features):
            try:
                classifier_head(network)
            except ValueError as error:
                raise ValueError(
                    f"prior '{name}' needs the teacher's features: {error}; or drop ~prior.{name}"
                ) from error

    def run_teacher(self, teacher: Teacher, inputs: Tensor, sets: int = 1) -> TeacherPass:
        """Run the teacher on `sets` equally large sets of normalised inputs, and record what the terms need."""
        nothing = contextlib.nullcontext([])
        norms = watch_batch_norms(teacher.net, sets) if self.needs_batch_norm else nothing
        last = watch_features(teacher.net) if self.needs_features else nothing
        every = watch_patches(teacher.net) if self.needs_patches else nothing
        with norms as statistics, last as features, every as patches:
            logits = teacher.forward_normalized(inputs)
        penultimate = features[0] if features else None
        return TeacherPass(inputs, logits.float(), sets, statistics, penultimate, patches, teacher.normalize)

    def __call__(self, teacher_pass: TeacherPass) -> dict[str, Tensor]:
        """Compute the weighted terms of every set, by name, each (S,)."""
        return {name: term.weight * term(teacher_pass) for name, term in self.terms.items()}
