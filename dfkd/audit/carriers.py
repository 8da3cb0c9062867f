"""Changes that are the same for every image and carry images of all other classes to one class.

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

AT_ONCE = 2000  # images per forward pass of a measurement


@dataclass(frozen=True)
class Carrier:
    """One change a class, and what it does to the images of the other classes.

    Attributes:
        change: added to every image, which is then clipped to [0, 1]; (K, C, H, W) for K classes.
        success: share of the images that the teacher then gives the class (K,), in [0, 1].
        gain: mean of (logit of the class - largest other logit) over these images (K,).
    """

    change: Tensor
    success: Tensor
    gain: Tensor


def universal_shifts(
    teacher: Teacher, synthetics: Synthetics, eps: float, steps: int, batch: int, stream: torch.Generator
) -> Carrier:
    """Seek for every class the best change of at most `eps` a pixel, by sign gradients with momentum 0.7: a targeted
    universal perturbation (Moosavi-Dezfooli et al., CVPR 2017, arXiv 1610.08401). It finds triggers that cover the
    image.

    Args:
        eps: largest change of a pixel, on the images' scale.
        batch: images of every step.
        stream: draws these images.
    """
    shape = (teacher.classes, *teacher.shape)
    change, momentum = (torch.zeros(shape, device=synthetics.images.device) for _ in range(2))
    for step in range(steps):
        gradient = _gradient(teacher, synthetics, change, batch, stream)
        momentum = 0.7 * momentum + gradient / _size(gradient)
        stride = 2.5 * eps / steps if step < 0.6 * steps else eps / steps
        change = (change - stride * momentum.sign()).clamp(-eps, eps)
    return Carrier(change, *carried(teacher, synthetics, lambda images: images + change[:, None]))


def universal_marks(
    teacher: Teacher,
    synthetics: Synthetics,
    share: float,
    steps: int,
    batch: int,
    stream: torch.Generator,
    rate: float = 0.5,
) -> Carrier:
    """Seek for every class the best change of a few pixels, which may take any value. It finds local triggers.

    The gradients of all pixels are summed up with a slow decay, and the pixels with the largest sums are changed (dual
    averaging with hard thresholding): a pixel that is not changed yet can still be chosen later.

    Args:
        share: share of the pixels that are changed, in (0, 1]; at least one pixel.
        batch, stream: see `universal_shifts`.
        rate: step size.
    """
    count = max(1, round(share * teacher.shape[1] * teacher.shape[2]))
    total = torch.zeros(teacher.classes, *teacher.shape, device=synthetics.images.device)
    for _ in range(steps):
        gradient = _gradient(teacher, synthetics, _largest(total, count), batch, stream)
        total = 0.95 * total - rate * gradient / gradient.abs().flatten(1).amax(1).clamp_min(1e-12).view(-1, 1, 1, 1)
    change = _largest(total, count)
    return Carrier(change, *carried(teacher, synthetics, lambda images: images + change[:, None]))


def carried(teacher: Teacher, synthetics: Synthetics, apply: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Measure `Carrier.success` and `Carrier.gain` of a change.

    Args:
        apply: images (1, N, C, H, W) -> changed images (K, N, C, H, W).
    """
    classes = teacher.classes
    images = apply(synthetics.images[None]).clamp(0, 1)
    logits = teacher.predict(images.flatten(0, 1), AT_ONCE).float().view(classes, -1, classes)
    wanted = torch.arange(classes, device=logits.device).view(-1, 1, 1).expand(-1, logits.shape[1], 1)
    margin = logits.gather(2, wanted)[..., 0] - logits.scatter(2, wanted, -torch.inf).amax(2)
    others = of_others(synthetics.answers, classes)
    return _mean((margin > 0).float(), others), _mean(margin, others)


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


def _gradient(teacher: Teacher, synthetics: Synthetics, change: Tensor, batch: int, stream: torch.Generator) -> Tensor:
    """Gradient of `pull` with respect to the change (K, C, H, W), on a random batch."""
    images, answers = draw(synthetics, batch, stream)
    change = change.detach().requires_grad_()
    loss, _ = pull(teacher, (images[None] + change[:, None]).clamp(0, 1), answers)
    return torch.autograd.grad(loss.sum(), change)[0]


def _largest(total: Tensor, count: int) -> Tensor:
    """Keep the `count` pixels of every class with the largest sums over channels, and limit their values to [-1, 1]."""
    size = total.abs().sum(1).flatten(1)
    kept = torch.zeros_like(size).scatter(1, size.topk(count, 1).indices, 1.0)
    return (total * kept.view(len(total), 1, *total.shape[2:])).clamp(-1, 1)


def _mean(values: Tensor, where: Tensor) -> Tensor:
    """Mean of values (K, N) where `where` is true, for every row; 0 for a row where it is nowhere."""
    return (values * where).sum(1) / where.sum(1).clamp_min(1)


def _size(gradient: Tensor) -> Tensor:
    return gradient.abs().flatten(1).mean(1).clamp_min(1e-12).view(-1, 1, 1, 1)
