"""Positions of max-poolings. Networks with equal names and shapes can have their poolings at different positions, and
then compute different functions."""

from itertools import accumulate

from torch import nn

from dfkd.weights.naming import Layers, Naming


class PoolsElsewhere(ValueError):
    """The file's network has the shapes of ours, but max-poolings at other positions.

    Attributes:
        options: options that give our network the same poolings; empty if there are none.
    """

    def __init__(self, text: str, **options: int):
        super().__init__(text)
        self.options = options


def check_pools(net: nn.Module, naming: Naming, theirs: Layers, size: int | None = None) -> None:
    """Compare our max-poolings with those of the file's network, as far as its layer names reveal them.

    Args:
        theirs: layers of the file, in our order.
        size: side of the images in pixels, if known.

    Raises:
        PoolsElsewhere: the positions differ, or there are layers in between that are neither ReLUs nor max-poolings.
    """
    ours = pools_of(net)
    if naming.pools == "none" and ours:
        raise PoolsElsewhere("their network has no max-pooling, and ours has one: leave teacher.network.stem out")
    if naming.pools == "blocks":
        _check_blocks(ours, _ends_of_blocks(theirs), size)
    if naming.pools == "gaps":
        before, last = _from_gaps(theirs)
        if [position for position in ours if position < last] != before:
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
    """Return the number of convolutions before each max-pooling of a network without branches."""
    positions, convolutions = [], 0
    for module in net.modules():
        convolutions += isinstance(module, nn.Conv2d)
        if isinstance(module, nn.MaxPool2d):
            positions.append(convolutions)
    return positions


def _is_convolution(layer: dict) -> bool:
    return "weight" in layer and layer["weight"].dim() == 4


def _ends_of_blocks(theirs: Layers) -> list[int]:
    """Return the number of convolutions up to the end of each block (layer block0.3 belongs to block0)."""
    counts: dict[str, int] = {}
    for name, layer in theirs.items():
        block = name.partition(".")[0]
        counts[block] = counts.get(block, 0) + _is_convolution(layer)
    return list(accumulate(counts.values()))[:-1]  # without the classifier, which is not a block


def _from_gaps(theirs: Layers) -> tuple[list[int], int]:
    """Infer max-poolings from gaps in the numbers of the layers features.0, features.3, ...

    Returns:
        the number of convolutions before each max-pooling (those before the last convolution only), and the total
        number of convolutions.
    """
    numbered = [(int(name.rpartition(".")[2]), layer) for name, layer in theirs.items() if name.startswith("features.")]
    positions, convolutions = [], 0
    for number, (index, layer) in enumerate(numbered):
        convolutions += _is_convolution(layer)
        if number + 1 < len(numbered):
            following, next_layer = numbered[number + 1]
            between = following - index - 1
            expected = int(_is_convolution(next_layer))  # one ReLU precedes a convolution; a BatchNorm follows directly
            if between == expected + 1:
                positions.append(convolutions)
            elif between != expected:
                raise PoolsElsewhere(
                    f"between features.{index} and features.{following} of their network stand layers that ours has not"
                )
    return positions, convolutions
