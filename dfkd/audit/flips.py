"""How far an image of each class can be moved before the teacher changes its mind."""

import torch
from torch import Tensor

from dfkd.attacks import PGD
from dfkd.models import Teacher

RADII = tuple(2**power / 255 for power in range(8))  # 1/255 to 128/255
NEVER = 256 / 255  # in place of the radius of an image that no radius flips


def flip_radii(teacher: Teacher, images: Tensor, steps: int, stream: torch.Generator) -> Tensor:
    """Return for every image (N,) the smallest radius of `RADII` at which PGD changes its class; `NEVER` if none does.

    Only images that a smaller radius left alone are attacked again.
    """
    found = torch.full((len(images),), NEVER, device=images.device)
    alive = torch.arange(len(images), device=images.device)
    for radius in RADII:
        flipped = PGD(eps=radius, steps=steps, loss="margin").attack(teacher, images[alive], stream).flipped
        found[alive[flipped]] = radius
        alive = alive[~flipped]
        if len(alive) == 0:
            break
    return found


def by_class(values: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Return the mean of values (N,) over the images of each class (classes,)."""
    return torch.stack([values[labels == number].mean() for number in range(classes)])
