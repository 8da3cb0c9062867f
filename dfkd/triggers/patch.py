"""A patch in the corner (BadNets: Gu et al., 2017, arXiv 1708.06733)."""

import torch
from torch import Tensor

from dfkd.triggers.base import scaled


class Patch:
    """A square in the bottom-right corner.

    Args:
        size: side of the square in pixels; equals the number of rows if pattern is given as rows.
        margin: pixels between the square and the two edges.
        pattern: 'solid', 'checker' (alternating pixels, bright in the corner), or rows of brightness values in [0, 1],
            top to bottom.
        value: brightness of the bright pixels, in [0, 1].
        canvas: side of the images for which size and margin are defined. On images of other sizes they are scaled: a
            solid square to at least one pixel, the cells of a pattern to a whole number of pixels. None means no
            scaling.

    Raises:
        ValueError: a value is out of range, or (when called) the patch does not fit the image.
    """

    def __init__(
        self,
        size: int = 3,
        margin: int = 1,
        pattern: str | list[list[float]] = "solid",
        value: float = 1.0,
        canvas: int | None = None,
    ):
        if size < 1 or margin < 0:
            raise ValueError(f"a patch needs size >= 1 and margin >= 0, got size={size}, margin={margin}")
        if isinstance(pattern, str) and pattern not in ("solid", "checker"):
            raise ValueError(f"pattern must be 'solid', 'checker' or rows of numbers, got '{pattern}'")
        if not 0 <= value <= 1:
            raise ValueError(f"value must lie in [0, 1], got {value}")
        if canvas is not None and canvas < 1:
            raise ValueError(f"canvas must be at least 1, or null, got {canvas}")
        self.margin, self.canvas, self.solid = margin, canvas, pattern == "solid"
        if self.solid:
            cells = torch.ones(size, size)
        elif pattern == "checker":
            steps = torch.arange(size)
            cells = ((steps[:, None] + steps[None, :]) % 2 == 0).float().flip(0, 1)
        else:
            cells = _cells(pattern, size)
        self.patch = cells * value

    def __call__(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        patch, margin = self._fitted(min(height, width))
        size = len(patch)
        if size + margin > min(height, width):
            raise ValueError(f"a {size}-pixel patch with margin {margin} does not fit a {height}x{width} image")
        bottom, right = height - margin, width - margin
        stamped = images.clone()
        stamped[..., bottom - size : bottom, right - size : right] = patch.to(images)
        return stamped

    def _fitted(self, side: int) -> tuple[Tensor, int]:
        """Return the patch and the margin, scaled to an image of `side` pixels."""
        if self.canvas is None:
            return self.patch, self.margin
        margin = scaled(self.margin, side, self.canvas)
        if self.solid:
            size = max(1, scaled(len(self.patch), side, self.canvas))
            return self.patch[:1, :1].expand(size, size), margin
        cell = max(1, scaled(1, side, self.canvas))
        return self.patch.repeat_interleave(cell, 0).repeat_interleave(cell, 1), margin


def _cells(rows: list[list[float]], size: int) -> Tensor:
    """Convert a pattern given as rows to a tensor (size, size)."""
    if len(rows) != size or any(len(row) != size for row in rows):
        raise ValueError(f"pattern must have {size} rows of {size} numbers (size={size}), got {rows}")
    if not all(0 <= cell <= 1 for row in rows for cell in row):
        raise ValueError(f"pattern must hold numbers in [0, 1], got {rows}")
    return torch.tensor(rows, dtype=torch.float32)
