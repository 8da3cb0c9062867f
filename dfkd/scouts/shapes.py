"""Plain colours with a gradient, and simple shapes."""

import math

import torch
from torch import Tensor

from dfkd.scouts.base import Scouts


class Colours(Scouts):
    """Two colours that run into each other along a random direction; in a quarter of the images both are the same."""

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        one, two = self.colours(count, generator), self.colours(count, generator)
        two = torch.where(self.uniform(count, 0, 1, generator) < 0.25, one, two)
        y, x = _grid(self.shape, generator.device)
        angle = self.uniform(count, 0, 2 * math.pi, generator)
        share = 0.5 + (x * angle.cos() + y * angle.sin()) / (2 * math.sqrt(2))
        return one + (two - one) * share


class Shapes(Scouts):
    """Up to `most` filled boxes, discs and stripes of random size, place and colour on a plain colour.

    Args:
        shape: (C, H, W) of an image (set from the domain).
        most: largest number of shapes in an image, at least 1.

    Raises:
        ValueError: most < 1.
    """

    def __init__(self, shape: tuple[int, int, int], most: int = 4):
        super().__init__(shape)
        if most < 1:
            raise ValueError(f"most must be at least 1, got {most}")
        self.most = most

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        image = self.colours(count, generator).expand(count, *self.shape)
        y, x = _grid(self.shape, generator.device)
        number = self.uniform(count, 1, self.most + 1, generator).floor()
        for place in range(self.most):
            dx, dy = (axis - self.uniform(count, -1, 1, generator) for axis in (x, y))
            width, height = (self.uniform(count, 0.05, 0.6, generator) for _ in range(2))
            angle = self.uniform(count, 0, math.pi, generator)
            disc = dx.square() + dy.square() < width.square()
            box = (dx.abs() < width) & (dy.abs() < height)
            stripe = (dx * angle.cos() + dy * angle.sin()).abs() < width / 3
            kind = self.uniform(count, 0, 3, generator).floor()
            inside = torch.where(kind == 0, disc, torch.where(kind == 1, box, stripe)) & (place < number)
            image = torch.where(inside, self.colours(count, generator), image)
        return image.contiguous()


def _grid(shape: tuple[int, int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the rows' and the columns' coordinates in [-1, 1], as (H, 1) and (1, W)."""
    _, height, width = shape
    return torch.linspace(-1, 1, height, device=device)[:, None], torch.linspace(-1, 1, width, device=device)[None]
