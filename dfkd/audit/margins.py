"""The largest margin of each class (MM-BD: Wang et al., IEEE S&P 2024, arXiv 2205.06900)."""

import torch
from torch import Tensor

from dfkd.models import Teacher


def largest_margins(teacher: Teacher, starts: int, steps: int, stream: torch.Generator, lr: float = 0.1) -> Tensor:
    """Maximise (logit of the class - largest other logit) over images in [0, 1], from random ones, with Adam.

    Args:
        starts: random images a class; the best end counts.

    Returns:
        (classes,)
    """
    device = stream.device
    wanted = torch.arange(teacher.classes, device=device).repeat_interleave(starts)
    noise = torch.rand(len(wanted), *teacher.shape, generator=stream, device=device)
    inner = torch.logit(0.02 + 0.96 * noise).requires_grad_()
    optimizer = torch.optim.Adam([inner], lr=lr)
    for _ in range(steps):
        margin = _margin(teacher, inner, wanted)
        inner.grad = torch.autograd.grad(-margin.sum(), inner)[0]
        optimizer.step()
    with torch.no_grad():
        return _margin(teacher, inner, wanted).view(-1, starts).amax(1)


def _margin(teacher: Teacher, inner: Tensor, wanted: Tensor) -> Tensor:
    logits = teacher(torch.sigmoid(inner)).float()
    own = logits.gather(1, wanted[:, None])[:, 0]
    return own - logits.scatter(1, wanted[:, None], -torch.inf).amax(1)
