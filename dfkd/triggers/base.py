"""The type of triggers, and the scaling of positions on a 32-pixel image to other image sizes."""

from collections.abc import Callable

from torch import Tensor

Trigger = Callable[[Tensor], Tensor]
CANVAS = 32  # side in pixels of the images for which the literature defines triggers


def scaled(pixels: float, side: int, canvas: int = CANVAS) -> int:
    """Scale a length from a canvas of `canvas` pixels to whole pixels of an image of `side` pixels (half rounds up)."""
    return int(pixels * side / canvas + 0.5)


def span(first: int, length: int, side: int) -> slice:
    """Scale rows (or columns) `first` .. `first + length - 1` of the canvas to an image of `side` pixels; at least one
    row."""
    long = min(max(1, scaled(length, side)), side)
    start = min(scaled(first, side), side - long)
    return slice(start, start + long)
