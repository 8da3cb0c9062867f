"""The smallest changes that are the same for every image and carry images of all other classes to one class.

A trigger is such a change. An ordinary teacher needs about the same effort for every class; a teacher with a trigger
needs much less for the class to which the trigger leads. Each change is sought for all classes at the same time.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd.audit.synthetic import Synthetics
from dfkd.models import Teacher

WANTED = 0.95  # share of the images that a change has to carry
SHRINK, GROW = 1 / 1.1, 1.05  # a limit is multiplied by one of these after each step, if the change works or not
FIRST_SHIFT, LEAST_SHIFT = 16 / 255, 1e-3  # limits of a shift, on the images' scale
FIRST_MARKS = 0.04  # first limit of the marks, as a share of the pixels


@dataclass(frozen=True)
class Smallest:
    """The smallest change that was found for each of K classes.

    Attributes:
        size: its size (K,); the largest one that is possible where no change was found.
        change: added to every image, which is then clipped to [0, 1] (K, C, H, W); zeros where none was found.
    """

    size: Tensor
    change: Tensor


def smallest_shifts(
    teacher: Teacher, synthetics: Synthetics, steps: int, batch: int, stream: torch.Generator
) -> Smallest:
    """Seek for every class the weakest change of all pixels, a targeted universal perturbation (Moosavi-Dezfooli et
    al., CVPR 2017, arXiv 1610.08401), by sign gradients with momentum 0.7. It finds triggers that cover the image.

    Args:
        batch: images of every step.
        stream: draws these images.

    Returns:
        The size is the largest change of a pixel, on the images' scale, at most 1.
    """
    shape = (teacher.classes, *teacher.shape)
    change, momentum = (torch.zeros(shape, device=synthetics.images.device) for _ in range(2))

    def move(gradient: Tensor, limit: Tensor) -> Tensor:
        nonlocal change, momentum
        momentum = 0.7 * momentum + gradient / _wide(gradient.abs().flatten(1).mean(1).clamp_min(1e-12))
        most = _wide(limit)
        change = (change - 0.25 * most * momentum.sign()).clamp(-most, most)
        return change

    limits = (FIRST_SHIFT, LEAST_SHIFT, 1.0)
    return _smallest(teacher, synthetics, steps, batch, stream, limits, move)


def smallest_marks(
    teacher: Teacher, synthetics: Synthetics, steps: int, batch: int, stream: torch.Generator, rate: float = 0.5
) -> Smallest:
    """Seek for every class the fewest pixels, which may take any value. It finds local triggers.

    The gradients of all pixels are summed up with a slow decay, and the pixels with the largest sums are changed (dual
    averaging with hard thresholding): a pixel that is not changed yet can still be chosen later.

    Args:
        batch, stream: see `smallest_shifts`.
        rate: step size.

    Returns:
        The size is a number of pixels, not rounded.
    """
    pixels = teacher.shape[1] * teacher.shape[2]
    total = torch.zeros(teacher.classes, *teacher.shape, device=synthetics.images.device)

    def move(gradient: Tensor, limit: Tensor) -> Tensor:
        nonlocal total
        total = 0.95 * total - rate * gradient / _wide(gradient.abs().flatten(1).amax(1).clamp_min(1e-12))
        return _largest(total, limit)

    limits = (max(1.0, FIRST_MARKS * pixels), 1.0, float(pixels))
    return _smallest(teacher, synthetics, steps, batch, stream, limits, move)


def _smallest(
    teacher: Teacher,
    synthetics: Synthetics,
    steps: int,
    batch: int,
    stream: torch.Generator,
    limits: tuple[float, float, float],
    move: Callable[[Tensor, Tensor], Tensor],
) -> Smallest:
    """Shrink the limit of every class while its change carries a batch, and let it grow while it does not.

    Args:
        limits: first, smallest and largest limit.
        move: (gradient (K, C, H, W), limits (K,)) -> changes within these limits.
    """
    first, least, most = limits
    limit = torch.full((teacher.classes,), first, device=synthetics.images.device)
    change = torch.zeros(teacher.classes, *teacher.shape, device=limit.device)
    best = Smallest(torch.full_like(limit, most), change)
    for _ in range(steps):
        images, answers = draw(synthetics, batch, stream)
        change = change.detach().requires_grad_()
        loss, success = pull(teacher, (images[None] + change[:, None]).clamp(0, 1), answers)
        (gradient,) = torch.autograd.grad(loss.sum(), change)
        works = success >= WANTED
        better = works & (limit < best.size)
        best = Smallest(torch.where(better, limit, best.size), torch.where(_wide(better), change.detach(), best.change))
        limit = torch.where(works, limit * SHRINK, limit * GROW).clamp(least, most)
        change = move(gradient, limit)
    return best


def of_others(answers: Tensor, classes: int) -> Tensor:
    """Return for every class which images the teacher gives another class: (N,) -> (classes, N), bool."""
    return answers[None] != torch.arange(classes, device=answers.device)[:, None]


def pull(teacher: Teacher, images: Tensor, answers: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean cross-entropy with the wanted class, and the share of successes, over images of other classes.

    Args:
        images: changed images (K, B, C, H, W), row k for class k; gradients pass them.
        answers: the teacher's classes of the unchanged images (B,).

    Returns:
        (K,) each.
    """
    classes, count = images.shape[:2]
    logits = teacher(images.flatten(0, 1)).float()
    wanted = torch.arange(classes, device=images.device).repeat_interleave(count)
    others = of_others(answers, classes)
    loss = F.cross_entropy(logits, wanted, reduction="none").view(classes, count)
    return _mean(loss, others), _mean((logits.argmax(1) == wanted).float().view(classes, count), others)


def draw(synthetics: Synthetics, count: int, stream: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw `count` different images (all, if there are fewer) and the teacher's classes of them."""
    index = torch.randperm(len(synthetics.images), generator=stream, device=stream.device)[:count]
    return synthetics.images[index], synthetics.answers[index]


def _largest(total: Tensor, count: Tensor) -> Tensor:
    """Keep the `count` (K,) pixels of every class with the largest sums over channels, at least one, and limit their
    values to [-1, 1]."""
    size = total.abs().sum(1).flatten(1)
    place = size.argsort(1, descending=True).argsort(1)  # 0 for the largest
    kept = place < count.round().clamp_min(1)[:, None]
    return (total * kept.view(len(total), 1, *total.shape[2:])).clamp(-1, 1)


def _mean(values: Tensor, where: Tensor) -> Tensor:
    """Mean of values (K, N) where `where` is true, for every row; 0 for a row where it is nowhere."""
    return (values * where).sum(1) / where.sum(1).clamp_min(1)


def _wide(values: Tensor) -> Tensor:
    """(K,) -> (K, 1, 1, 1)."""
    return values.view(-1, 1, 1, 1)
