"""What every search for a carrier shares: the images, the classes to carry them to, and who has to be carried."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

WANTED = 0.95  # share of the images that a carrier has to carry


@dataclass(frozen=True)
class Search:
    """A search for one carrier to each of K classes.

    Attributes:
        models: images (B, C, H, W) -> logits (B, classes); an image is carried if all of them give it the class.
        images: (N, C, H, W), float, in [0, 1].
        answers: classes of the images (N,); only images of other classes have to be carried to a class.
        wanted: the classes to carry them to (K,).
        batch: images of every step.
        stream: the only source of randomness.
        share: share of a batch that a carrier has to carry.
    """

    models: Sequence[Callable[[Tensor], Tensor]]
    images: Tensor
    answers: Tensor
    wanted: Tensor
    batch: int
    stream: torch.Generator
    share: float = WANTED

    def draw(self) -> tuple[Tensor, Tensor]:
        """Draw `batch` different images (all, if there are fewer), and return them and their classes."""
        device = self.stream.device
        index = torch.randperm(len(self.images), generator=self.stream, device=device)[: self.batch]
        return self.images[index], self.answers[index]

    def pull(self, images: Tensor, answers: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss and the share of successes over the images of other classes: the mean cross-entropy with the
        wanted class, summed over the models, and the share that all of them give this class.

        Args:
            images: changed images (K, B, C, H, W), row k for class wanted[k]; gradients pass them.
            answers: classes of the unchanged images (B,).

        Returns:
            (K,) each.
        """
        rows = images.shape[:2]
        each = self.wanted.repeat_interleave(rows[1])
        others = of_others(answers, self.wanted)
        logits = [model(images.flatten(0, 1)).float() for model in self.models]
        loss = sum(F.cross_entropy(one, each, reduction="none") for one in logits).view(rows)
        carried = torch.stack([one.argmax(1) == each for one in logits]).all(0).float().view(rows)
        return _mean(loss, others), _mean(carried, others)


def of_others(answers: Tensor, wanted: Tensor) -> Tensor:
    """Return for every wanted class (K,) which images have another class: (N,) -> (K, N), bool."""
    return answers[None] != wanted[:, None]


def wide(values: Tensor, like: Tensor) -> Tensor:
    """Return values (K,) as (K, 1, ..., 1) with as many dimensions as `like`."""
    return values.view(-1, *[1] * (like.ndim - 1))


def _mean(values: Tensor, where: Tensor) -> Tensor:
    """Mean of values (K, N) where `where` is true, for every row; 0 for a row where it is nowhere."""
    return (values * where).sum(1) / where.sum(1).clamp_min(1)
