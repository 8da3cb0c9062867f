"""The smallest mask and pattern that carry images of all other classes to one class (Neural Cleanse)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dfkd.carriers.search import Search


@dataclass(frozen=True)
class Masks:
    """One mask m and pattern p for every class; an image x becomes (1 - m) x + m p.

    Attributes:
        size: sum of the mask over the pixels (K,); the largest one that is allowed where no mask was found.
        mask: (K, 1, H, W), in [0, 1]; ones where none was found.
        pattern: (K, C, H, W), in [0, 1].
    """

    size: Tensor
    mask: Tensor
    pattern: Tensor

    @property
    def found(self) -> Tensor:
        """Whether a mask was found (K,), bool."""
        return ~(self.mask == 1).flatten(1).all(1)


def smallest_masks(search: Search, steps: int, most: float | None = None, lr: float = 0.3) -> Masks:
    """Seek for every class the smallest mask (Neural Cleanse: Wang et al., IEEE S&P 2019).

    Adam minimises cross-entropy with the class + weight * size of the mask. The weight of a class grows while at least
    `search.share` of the batch are carried, and falls otherwise; the smallest mask of a step with enough success is
    kept.

    Args:
        most: masks of this size or larger are not kept; None for the number of pixels.
        lr: step size of Adam.
    """
    images, stream = search.images, search.stream
    device, (channels, height, width), classes = images.device, images.shape[1:], len(search.wanted)
    mask = 0.3 * torch.randn(classes, 1, height, width, generator=stream, device=device) - 2
    pattern = 0.3 * torch.randn(classes, channels, height, width, generator=stream, device=device)
    parameters = [mask.requires_grad_(), pattern.requires_grad_()]
    optimizer = torch.optim.Adam(parameters, lr=lr, betas=(0.5, 0.9))
    weight = torch.full((classes,), 0.01, device=device)
    best = Masks(
        torch.full((classes,), float(height * width) if most is None else most, device=device),
        torch.ones_like(mask).detach(),
        torch.sigmoid(pattern).detach(),
    )
    for _ in range(steps):
        images, answers = search.draw()
        m, p = torch.sigmoid(mask), torch.sigmoid(3 * pattern)
        loss, success = search.pull((1 - m[:, None]) * images[None] + (m * p)[:, None], answers)
        size = m.flatten(1).sum(1)
        for parameter, gradient in zip(
            parameters, torch.autograd.grad((loss + weight * size).sum(), parameters), strict=True
        ):
            parameter.grad = gradient
        best = _smaller(best, Masks(size.detach(), m.detach(), p.detach()), success >= search.share)
        weight = torch.where(success >= search.share, weight * 1.15, weight / 1.25).clamp(1e-5, 10)
        optimizer.step()
    return best


def _smaller(best: Masks, found: Masks, works: Tensor) -> Masks:
    """For every class the found mask if it `works` (K,) and is smaller than the best one, else the best one."""
    better = works & (found.size < best.size)
    wide = better.view(-1, 1, 1, 1)
    return Masks(
        torch.where(better, found.size, best.size),
        torch.where(wide, found.mask, best.mask),
        torch.where(wide, found.pattern, best.pattern),
    )
