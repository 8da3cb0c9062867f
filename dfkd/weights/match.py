"""Compares tensors with a network under every known naming, and lists the differences."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import Tensor, nn

from dfkd.models.common import FeatureNet
from dfkd.models.timm_model import TimmNet
from dfkd.weights.naming import Layers, Naming, layers_of, namings
from dfkd.weights.pools import PoolsElsewhere, check_pools

OWN, TIMM = "dfkd", "timm"
COUNTED = "num_batches_tracked"  # buffer of BatchNorm on which no output depends
BESIDE_NET = "net."  # prefix of timm's tensor names in `TimmNet`


@dataclass
class Match:
    """The comparison of tensors with a network under one naming.

    Attributes:
        naming: name of the naming.
        weights: tensors whose renamed name exists in the network, by the network's names.
        missing, extra, wrong: names that only the network has, that only the file has, and whose shapes differ; all
            empty if the tensors fit.
        other: the reason why our network would compute a different function with these tensors; '' if it would not.
        options: options of our network with which it would compute the same function.
        note: what the file does not determine: 'stem', 'pools', 'activations', or None.
        layers: layers of the file, in our order; empty if they have our names.
    """

    naming: str
    weights: dict[str, Tensor]
    missing: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    other: str = ""
    options: dict[str, int] = field(default_factory=dict)
    note: str | None = None
    layers: Layers = field(default_factory=dict)

    @property
    def fits(self) -> bool:
        return not (self.missing or self.extra or self.wrong or self.other)

    @property
    def is_known(self) -> bool:
        """Whether the naming is certain: all layers follow a known naming, or most have our network's names."""
        return bool(self.layers) or len(self.weights) > len(self.missing) + len(self.extra)

    @property
    def distance(self) -> tuple[int, int]:
        """Sort key for the distance from a fit: number of names that differ, then number of shapes that differ."""
        return len(self.missing) + len(self.extra), len(self.wrong) + bool(self.other)


def match(net: nn.Module, tensors: dict[str, Tensor], size: int | None = None) -> Match:
    """Return the match under the naming in which tensors fit a network, or are closest to fitting.

    Args:
        size: side of the images in pixels, if known; in some networks the position of the poolings depends on it.
    """
    return min(_matches(net, tensors, size), key=lambda one: one.distance)


def _matches(net: nn.Module, tensors: dict[str, Tensor], size: int | None) -> Iterator[Match]:
    own = net.state_dict()
    yield _compared(own, tensors, OWN)
    if hasattr(net, "net"):
        yield _compared(own, {BESIDE_NET + key: value for key, value in tensors.items()}, TIMM)
    if not isinstance(net, FeatureNet | TimmNet):  # the order of a user's layers does not determine the function
        return
    ours = layers_of(own)
    for naming in namings():
        theirs = naming.layers_of(tensors)
        order = naming.ordered(theirs)
        if order is not None and naming.kernels in (None, kernels(ours)):
            yield _renamed(net, own, naming, {name: theirs[name] for name in order}, size)


def _renamed(net: nn.Module, own: dict[str, Tensor], naming: Naming, theirs: Layers, size: int | None) -> Match:
    """Rename the k-th layer of the file to the name of our k-th layer, and compare."""
    ours = list(layers_of(own))
    names = [*ours, *list(theirs)[len(ours) :]]  # surplus layers keep the names of the file
    renamed = {
        f"{name}.{part}": value
        for name, layer in zip(names, theirs.values(), strict=False)
        for part, value in layer.items()
    }
    result = _compared(own, renamed, naming.name)
    result.note, result.layers = naming.note, theirs
    if result.fits:
        try:
            check_pools(net, naming, theirs, size)
        except PoolsElsewhere as error:
            result.other, result.options = str(error), error.options
    return result


def _compared(own: dict[str, Tensor], tensors: dict[str, Tensor], naming: str) -> Match:
    both = [key for key in own if key in tensors]
    return Match(
        naming,
        {key: tensors[key] for key in both},
        missing=sorted(key for key in own.keys() - tensors.keys() if not key.endswith(COUNTED)),
        extra=sorted(key for key in tensors.keys() - own.keys() if not key.endswith(COUNTED)),
        wrong=[key for key in both if own[key].shape != tensors[key].shape],
    )


def kernels(layers: Layers) -> tuple[int, ...]:
    """Return the kernel sizes of all convolutions."""
    weights = (layer["weight"] for layer in layers.values() if "weight" in layer)
    return tuple(weight.shape[-1] for weight in weights if weight.dim() == 4)
