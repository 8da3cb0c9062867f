"""Advice for a weight file that does not fit: options of the network and the data, inferred from tensor shapes."""

from dataclasses import dataclass, field
from math import isqrt

from torch import Tensor, nn

from dfkd.weights.match import Match
from dfkd.weights.structure import has_stem, structure

PATCHES = "patch_embed.proj.weight"  # patch embedding of a vision transformer


@dataclass
class Advice:
    """Properties of the network in a file that differ from ours.

    Attributes:
        network: options of the network, by name.
        channels, size: number of channels and side of the images; None if they need no change.
        classes: number of classes; None if it needs no change.
    """

    network: dict[str, object] = field(default_factory=dict)
    channels: int | None = None
    size: int | None = None
    classes: int | None = None

    def overrides(self) -> list[str]:
        """Return the command-line arguments that set the network, channels and size."""
        options = {f"teacher.network.{key}": value for key, value in self.network.items()}
        options |= {"data.channels": self.channels, "data.size": self.size}
        return [f"{key}={_text(value)}" for key, value in options.items() if value is not None]

    def __bool__(self) -> bool:
        return bool(self.overrides() or self.classes)


def advice(net: nn.Module, match: Match, size: int | None = None) -> Advice:
    """Infer which changes of a network, its images or its classes make the tensors of a match fit.

    Args:
        match: the match that does not fit.
        size: side of the network's images in pixels, if known.
    """
    result, own = Advice(dict(match.options)), net.state_dict()
    matrices = [key for key, value in own.items() if key.endswith("weight") and value.dim() > 1]
    if not matrices:
        return result
    first, last = matrices[0], matrices[-1]
    head = {last, last.removesuffix("weight") + "bias"}
    if match.missing or match.extra or set(match.wrong) - head - {first}:
        _of_structure(net, match, own[first], result)
    for key in match.wrong if not result.network else ():
        mine, theirs = own[key], match.weights[key]
        if key == first and mine.dim() == theirs.dim() == 4:
            _of_first(net, mine, theirs, result)
        elif key == last and mine.dim() == theirs.dim() == 2:
            result.classes = theirs.shape[0] if theirs.shape[0] != mine.shape[0] else None
        elif key.endswith("pos_embed") and theirs.dim() == 3 and (patches := key.replace("pos_embed", PATCHES)) in own:
            side = isqrt(max(theirs.shape[1] - 1, 0)) * match.weights.get(patches, own[patches]).shape[-1]
            result.size = side if side != size else None
    if match.layers and not set(match.wrong) - head - {first}:
        _of_vgg_head(match, result)
    elif set(match.wrong) <= head and not (match.missing or match.extra) and size and last in match.weights:
        _of_flat_head(own[last], match.weights[last], size, result)
    return result


def _of_structure(net: nn.Module, match: Match, mine: Tensor, result: Advice) -> None:
    """Add other depths or widths to the advice. If these differ, a comparison of layers in pairs says nothing more."""
    result.network |= structure(net, match.naming, match.layers)
    if not result.network:
        return
    weights = [layer["weight"] for layer in match.layers.values() if "weight" in layer]
    matrices = [weight for weight in weights if weight.dim() > 1]
    if mine.dim() == matrices[0].dim() == 4:
        _of_first(net, mine, matrices[0], result)
    result.classes = matrices[-1].shape[0]


def _of_first(net: nn.Module, mine: Tensor, theirs: Tensor, result: Advice) -> None:
    """Add the advice that follows from the first convolution, (out, in, height, width)."""
    if mine.shape[1] != theirs.shape[1]:
        result.channels = theirs.shape[1]
    side, ours = theirs.shape[-1], mine.shape[-1]
    if side == ours:
        return
    if has_stem(net):
        result.network["stem"] = "conv7_pool" if side == 7 else "conv3"
    elif not hasattr(net, "net"):
        return
    elif any(name.endswith("patch_embed") for name, _ in net.named_modules()):
        result.network["patch_size"] = side
    else:
        result.network["small_stem"] = side == 3


def _of_vgg_head(match: Match, result: Advice) -> None:
    """Add the options of a head with linear layers after an average over a grid, as in torchvision's VGGs."""
    if not match.naming.endswith("VGG"):
        return
    weights = [layer["weight"] for layer in match.layers.values() if "weight" in layer]
    linear = [weight for weight in weights if weight.dim() == 2]
    maps = [weight.shape[0] for weight in weights if weight.dim() == 4]
    if not linear or not maps:
        return
    grid = isqrt(linear[0].shape[1] // maps[-1])
    if len(linear) > 1:
        result.network["hidden"] = [weight.shape[0] for weight in linear[:-1]]
    if grid > 1:
        result.network["grid"] = grid
    if result.network:
        result.classes = linear[-1].shape[0]


def _of_flat_head(mine: Tensor, theirs: Tensor, size: int, result: Advice) -> None:
    """Infer the image size from the number of inputs of a head without pooling, which grows with the positions."""
    if mine.dim() == theirs.dim() == 2 and mine.shape[1] != theirs.shape[1]:
        side = isqrt(size * size * theirs.shape[1] // mine.shape[1])
        if side * side * mine.shape[1] == size * size * theirs.shape[1]:
            result.size = side


def _text(value: object) -> str:
    """Format a value for the command line."""
    if isinstance(value, list):
        return f"[{','.join(map(str, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)
