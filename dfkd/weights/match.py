"""Whether tensors are the weights of a network, under which naming, and what is in the way."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import Tensor, nn

from dfkd.models.common import FeatureNet
from dfkd.models.timm_model import TimmNet
from dfkd.weights.naming import Layers, Naming, layers_of, namings
from dfkd.weights.pools import PoolsElsewhere, check_pools

OWN, TIMM = "dfkd", "timm"
COUNTED = "num_batches_tracked"  # of a BatchNorm; no output depends on it
BESIDE_NET = "net."  # how a timm network's names begin in ours


@dataclass
class Match:
    """Tensors renamed to a network's own names.

    Attributes:
        naming: how they were named.
        weights: the tensors that have a place in the network, by its names.
        missing, extra, wrong: what is in the way, each as text; all empty if they fit.
        other: why a network of these shapes would compute something else; '' if it would not.
        options: of the network, with which it would compute the same.
        note: what the file cannot tell: 'stem', 'pools', 'activations', or None.
        layers: theirs, in our order; empty where they have our names.
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
        """Whether the naming is certain: all layers are named in it, or most as in our network."""
        return bool(self.layers) or len(self.weights) > len(self.missing) + len(self.extra)

    @property
    def distance(self) -> tuple[int, int]:
        """How far from fitting, to choose what to explain: layers first, then shapes."""
        return len(self.missing) + len(self.extra), len(self.wrong) + bool(self.other)


def match(net: nn.Module, tensors: dict[str, Tensor], size: int | None = None) -> Match:
    """The naming under which tensors fit a network, or come nearest to it.

    Args:
        size: pixels a side of the images, if that is known: on it depends where some networks have their poolings.
    """
    return min(_matches(net, tensors, size), key=lambda found: found.distance)


def _matches(net: nn.Module, tensors: dict[str, Tensor], size: int | None) -> Iterator[Match]:
    own = net.state_dict()
    yield _compared(own, tensors, OWN)
    if hasattr(net, "net"):
        yield _compared(own, {BESIDE_NET + key: value for key, value in tensors.items()}, TIMM)
    if not isinstance(net, FeatureNet | TimmNet):  # of another network only its own names say what it computes
        return
    ours, theirs = layers_of(own), layers_of(tensors)
    for naming in namings():
        order = naming.ordered(theirs)
        if order is not None and naming.kernels in (None, kernels(ours)):
            yield _renamed(net, own, naming, {name: theirs[name] for name in order}, size)


def _renamed(net: nn.Module, own: dict[str, Tensor], naming: Naming, theirs: Layers, size: int | None) -> Match:
    """The k-th layer of theirs under the name of our k-th."""
    ours = list(layers_of(own))
    names = [*ours, *list(theirs)[len(ours) :]]  # those that are too many keep theirs
    renamed = {
        f"{name}.{part}": value
        for name, layer in zip(names, theirs.values(), strict=False)
        for part, value in layer.items()
    }
    found = _compared(own, renamed, naming.name)
    found.note, found.layers = naming.note, theirs
    if found.fits:
        try:
            check_pools(net, naming, theirs, size)
        except PoolsElsewhere as error:
            found.other, found.options = str(error), error.options
    return found


def _compared(own: dict[str, Tensor], given: dict[str, Tensor], naming: str) -> Match:
    both = [key for key in own if key in given]
    return Match(
        naming,
        {key: given[key] for key in both},
        missing=sorted(key for key in own.keys() - given.keys() if not key.endswith(COUNTED)),
        extra=sorted(key for key in given.keys() - own.keys() if not key.endswith(COUNTED)),
        wrong=[key for key in both if own[key].shape != given[key].shape],
    )


def kernels(layers: Layers) -> tuple[int, ...]:
    """The sides of the kernels of all convolutions."""
    weights = (layer["weight"] for layer in layers.values() if "weight" in layer)
    return tuple(weight.shape[-1] for weight in weights if weight.dim() == 4)
