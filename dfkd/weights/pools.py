"""Where max-poolings stand: names and shapes can agree in networks that pool at other places, and so compute other
things."""

from itertools import accumulate

from torch import nn

from dfkd.weights.naming import Layers, Naming


class PoolsElsewhere(ValueError):
    """The file's network has the shapes of ours, and its max-poolings at other places.

    Attributes:
        options: of our network, with which it is the same; empty if there are none.
    """

    def __init__(self, text: str, **options: int):
        super().__init__(text)
        self.options = options


def check_pools(net: nn.Module, naming: Naming, theirs: Layers, size: int | None = None) -> None:
    """Compare our max-poolings with what the names of a file tell of theirs.

    Args:
        theirs: the layers of the file, in our order.
        size: pixels a side of the images, if that is known.

    Raises:
        PoolsElsewhere: they differ, or other layers than ReLUs and max-poolings stand between.
    """
    ours = pools_of(net)
    if naming.pools == "none" and ours:
        raise PoolsElsewhere("their network has no max-pooling, and ours has one: leave teacher.network.stem out")
    if naming.pools == "blocks":
        _check_blocks(ours, _ends_of_blocks(theirs), size)
    if naming.pools == "gaps":
        before, last = _from_gaps(theirs)
        if [place for place in ours if place < last] != before:
            raise PoolsElsewhere(
                f"their network has max-poolings after the convolutions number {before or 'none'}, ours after {ours}"
            )


def _check_blocks(ours: list[int], ends: list[int], size: int | None) -> None:
    count = 4 if size == 64 else 3
    allowed = (3, 4) if size is None else (count,)
    if ours not in [ends[:number] for number in allowed]:
        raise PoolsElsewhere(
            f"their network has a max-pooling after each of its first three blocks (for images of 64 pixels: four) and "
            f"an average at the end, ours has others: set teacher.network.pools={count}",
            pools=count,
        )


def pools_of(net: nn.Module) -> list[int]:
    """The number of convolutions that come before each max-pooling of a plain network."""
    places, convolutions = [], 0
    for module in net.modules():
        convolutions += isinstance(module, nn.Conv2d)
        if isinstance(module, nn.MaxPool2d):
            places.append(convolutions)
    return places


def _is_convolution(layer: dict) -> bool:
    return "weight" in layer and layer["weight"].dim() == 4


def _ends_of_blocks(theirs: Layers) -> list[int]:
    """The number of convolutions up to the end of each block (block0.3 is in block0)."""
    counts: dict[str, int] = {}
    for name, layer in theirs.items():
        block = name.partition(".")[0]
        counts[block] = counts.get(block, 0) + _is_convolution(layer)
    return list(accumulate(counts.values()))[:-1]  # the classifier is no block


def _from_gaps(theirs: Layers) -> tuple[list[int], int]:
    """The max-poolings before the last convolution, and the number of convolutions; from features.0, features.3, ..."""
    numbered = [(int(name.rpartition(".")[2]), layer) for name, layer in theirs.items() if name.startswith("features.")]
    places, convolutions = [], 0
    for number, (place, layer) in enumerate(numbered):
        convolutions += _is_convolution(layer)
        if number + 1 < len(numbered):
            following, next_layer = numbered[number + 1]
            between = following - place - 1
            expected = int(_is_convolution(next_layer))  # a ReLU before a convolution, nothing before a BatchNorm
            if between == expected + 1:
                places.append(convolutions)
            elif between != expected:
                raise PoolsElsewhere(
                    f"between features.{place} and features.{following} of their network stand layers that ours has not"
                )
    return places, convolutions
