"""The smallest changes that are the same for every image and carry images of all other classes to one class.

A trigger is such a change. An ordinary teacher needs about the same effort for every class; a teacher with a trigger
needs much less for the class to which the trigger leads. Each change is sought for all classes at the same time.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dfkd.carriers.search import Search, wide

SHRINK, GROW = 1 / 1.1, 1.05  # a limit is multiplied by one of these after each step, if the change works or not
FIRST_SHIFT, LEAST_SHIFT = 16 / 255, 1e-3  # limits of a shift, on the images' scale
FIRST_MARKS = 0.04  # first limit of the marks, as a share of the pixels


@dataclass(frozen=True)
class Smallest:
    """The smallest change that was found for each of K classes.

    Attributes:
        size: its size (K,); the largest one that is allowed where no change was found.
        change: added to every image, which is then clipped to [0, 1] (K, C, H, W); zeros where none was found.
    """

    size: Tensor
    change: Tensor

    @property
    def found(self) -> Tensor:
        """Whether a change was found (K,), bool."""
        return self.change.flatten(1).any(1)


def smallest_shifts(search: Search, steps: int, most: float = 1.0) -> Smallest:
    """Seek for every class the weakest change of all pixels, a targeted universal perturbation (Moosavi-Dezfooli et
    al., CVPR 2017, arXiv 1610.08401), by sign gradients with momentum 0.7. It finds triggers that cover the image.

    Args:
        most: the largest size.

    Returns:
        The size is the largest change of a pixel, on the images' scale.
    """
    shape = (len(search.wanted), *search.images.shape[1:])
    change, momentum = (torch.zeros(shape, device=search.images.device) for _ in range(2))

    def move(gradient: Tensor, limit: Tensor) -> Tensor:
        nonlocal change, momentum
        momentum = 0.7 * momentum + gradient / wide(gradient.abs().flatten(1).mean(1).clamp_min(1e-12), gradient)
        bound = wide(limit, gradient)
        change = (change - 0.25 * bound * momentum.sign()).clamp(-bound, bound)
        return change

    return _smallest(search, steps, (FIRST_SHIFT, LEAST_SHIFT, most), move)


def smallest_marks(search: Search, steps: int, most: float | None = None, rate: float = 0.5) -> Smallest:
    """Seek for every class the fewest pixels, which may take any value. It finds local triggers.

    The gradients of all pixels are summed up with a slow decay, and the pixels with the largest sums are changed (dual
    averaging with hard thresholding): a pixel that is not changed yet can still be chosen later.

    Args:
        most: the largest size; None for all pixels.
        rate: step size.

    Returns:
        The size is a number of pixels, not rounded.
    """
    pixels = search.images[0, 0].numel()
    total = torch.zeros(len(search.wanted), *search.images.shape[1:], device=search.images.device)

    def move(gradient: Tensor, limit: Tensor) -> Tensor:
        nonlocal total
        total = 0.95 * total - rate * gradient / wide(gradient.abs().flatten(1).amax(1).clamp_min(1e-12), gradient)
        return _largest(total, limit)

    limits = (max(1.0, FIRST_MARKS * pixels), 1.0, float(pixels) if most is None else most)
    return _smallest(search, steps, limits, move)


def _smallest(
    search: Search,
    steps: int,
    limits: tuple[float, float, float],
    move: Callable[[Tensor, Tensor], Tensor],
) -> Smallest:
    """Shrink the limit of every class while its change carries a batch, and let it grow while it does not.

    Args:
        limits: first, smallest and largest limit.
        move: (gradient (K, C, H, W), limits (K,)) -> changes within these limits.
    """
    first, least, most = limits
    limit = torch.full((len(search.wanted),), min(first, most), device=search.images.device)
    change = torch.zeros(len(search.wanted), *search.images.shape[1:], device=limit.device)
    best = Smallest(torch.full_like(limit, most), change)
    for _ in range(steps):
        images, answers = search.draw()
        change = change.detach().requires_grad_()
        loss, success = search.pull((images[None] + change[:, None]).clamp(0, 1), answers)
        (gradient,) = torch.autograd.grad(loss.sum(), change)
        works = success >= search.share
        better = works & (limit <= best.size)
        kept = torch.where(wide(better, change), change.detach(), best.change)
        best = Smallest(torch.where(better, limit, best.size), kept)
        limit = torch.where(works, limit * SHRINK, limit * GROW).clamp(min(least, most), most)
        change = move(gradient, limit)
    return best


def _largest(total: Tensor, count: Tensor) -> Tensor:
    """Keep the `count` (K,) pixels of every class with the largest sums over channels, at least one, and limit their
    values to [-1, 1]."""
    size = total.abs().sum(1).flatten(1)
    place = size.argsort(1, descending=True).argsort(1)  # 0 for the largest
    kept = place < count.round().clamp_min(1)[:, None]
    return (total * kept.view(len(total), 1, *total.shape[2:])).clamp(-1, 1)
