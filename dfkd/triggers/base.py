"""What triggers share: the type, and how positions on a 32-pixel image move to other sizes."""

from collections.abc import Callable

from torch import Tensor

Trigger = Callable[[Tensor], Tensor]
CANVAS = 32  # pixels a side of the images that the triggers of the literature are drawn on


def scaled(pixels: float, side: int, canvas: int = CANVAS) -> int:
    """A length on a canvas of `canvas` pixels as whole pixels of an image of `side` pixels, a half rounded up."""
    return int(pixels * side / canvas + 0.5)


def span(first: int, length: int, side: int) -> slice:
    """Rows (or columns) `first` .. `first + length - 1` of the canvas on an image of `side` pixels: at least one."""
    long = min(max(1, scaled(length, side)), side)
    start = min(scaled(first, side), side - long)
    return slice(start, start + long)
