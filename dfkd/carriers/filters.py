"""The weakest filters that carry images of all other classes to one class: changes that depend on the image.

A trap may be a style and not a pattern: textures behind a digit, halos around its strokes. No change that is the same
for every image makes such a style; a small convolution does.
"""

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd.carriers.changes import GROW, SHRINK
from dfkd.carriers.search import Search, wide

WIDTH = 8  # channels of the hidden layer


@dataclass(frozen=True)
class Filters:
    """One filter for every class; an image x becomes clip(x + size * tanh(conv(relu(conv(x - 0.5))))).

    Attributes:
        size: largest change of a pixel (K,), on the images' scale; the largest one that is allowed where none was
            found.
        first, first_bias: weights of a 5x5 convolution (K, W, C, 5, 5), (K, W).
        second, second_bias: weights of a 3x3 convolution (K, C, W, 3, 3), (K, C); zeros where none was found.
    """

    size: Tensor
    first: Tensor
    first_bias: Tensor
    second: Tensor
    second_bias: Tensor

    def __getitem__(self, index: Tensor) -> "Filters":
        """Return the filters of some rows."""
        return Filters(*(getattr(self, field.name)[index] for field in fields(self)))

    @property
    def found(self) -> Tensor:
        """Whether a filter was found (K,), bool."""
        return self.second.flatten(1).any(1)

    def added(self, images: Tensor) -> Tensor:
        """Return what is added to images before they are clipped, (K, B, C, H, W) for images of the same shape, filter
        k to row k; or for images (B, C, H, W), of which every filter gets all."""
        if images.ndim == 4:
            images = images.expand(len(self.size), *images.shape)
        rows = len(images)
        h = (images - 0.5).transpose(0, 1).flatten(1, 2)  # (B, K * C, H, W): the filters are groups of a convolution
        h = F.conv2d(_padded(h, 2), self.first.flatten(0, 1), self.first_bias.flatten(), groups=rows).relu()
        h = F.conv2d(_padded(h, 1), self.second.flatten(0, 1), self.second_bias.flatten(), groups=rows)
        h = torch.tanh(h).unflatten(1, (rows, -1)).transpose(0, 1)
        return wide(self.size, h) * h


def weakest_filters(search: Search, steps: int, most: float, lr: float = 0.02) -> Filters:
    """Seek for every class the filter that changes pixels least, by Adam on the cross-entropy with the class.

    The size of a class shrinks while its filter carries `search.share` of the batch, and grows otherwise. Filters begin
    with random weights, so that another search finds others.

    Args:
        most: the largest size.
        lr: step size of Adam.
    """
    rows, channels = len(search.wanted), search.images.shape[1]
    device, stream = search.images.device, search.stream
    first = torch.randn(rows, WIDTH, channels, 5, 5, generator=stream, device=device) * (2 / (25 * channels)) ** 0.5
    second = torch.randn(rows, channels, WIDTH, 3, 3, generator=stream, device=device) * (1 / (9 * WIDTH)) ** 0.5
    biases = (torch.zeros(rows, WIDTH, device=device), torch.zeros(rows, channels, device=device))
    parameters = [part.requires_grad_() for part in (first, biases[0], second, biases[1])]
    optimizer = torch.optim.Adam(parameters, lr=lr, betas=(0.5, 0.9))
    size = torch.full((rows,), most, device=device)
    best = Filters(size, *(torch.zeros_like(part) for part in parameters))
    for _ in range(steps):
        images, answers = search.draw()
        filters = Filters(size, *parameters)
        loss, success = search.pull((images[None] + filters.added(images)).clamp(0, 1), answers)
        works = success >= search.share
        best = _weaker(best, filters, works)
        size = torch.where(works, size * SHRINK, size * GROW).clamp(max=most)
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss.sum(), parameters), strict=True):
            parameter.grad = gradient
        optimizer.step()
    return best


def _weaker(best: Filters, found: Filters, works: Tensor) -> Filters:
    """For every class the found filter if it `works` (K,) and is not larger than the best one, else the best one."""
    better = works & (found.size <= best.size)
    pairs = ((getattr(found, field.name).detach(), getattr(best, field.name)) for field in fields(Filters))
    return Filters(*(torch.where(wide(better, new), new, old) for new, old in pairs))


def _padded(maps: Tensor, by: int) -> Tensor:
    return F.pad(maps, (by, by, by, by), mode="replicate")
