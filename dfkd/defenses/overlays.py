"""Overlays that have taken an image to a robust class, and the random numbers of views."""

import torch
from torch import Tensor

from dfkd.training.augment import boxes

BLENDS = 0.15, 0.6  # range of the weight of a blended donor
RARE = 0.1  # weight of what the student no longer follows at all, beside 1 for what it follows firmly
WEAKEST = 0.6  # an overlay that is tried again has at least this share of its weight


class Overlays:
    """The newest overlays, at most `capacity`.

    Attributes:
        images: (N, C, H, W), the donors.
        logits: (N, classes), the teacher's logits for the views in which they worked.
        masks: (N, 1, H, W), in [0, 1], the weights with which they were mixed in.
        followed: (N,), in [0, 1], how much the student followed each of them when it was last looked at; new ones: 1.
    """

    def __init__(self, capacity: int):
        self.capacity = capacity
        self.images: Tensor | None = None
        self.logits: Tensor | None = None
        self.masks: Tensor | None = None
        self.followed: Tensor | None = None

    def __len__(self) -> int:
        return 0 if self.images is None else len(self.images)

    def add(self, images: Tensor, logits: Tensor, masks: Tensor) -> None:
        """Append overlays; the oldest beyond the capacity are dropped."""
        fresh = (images, logits, masks, torch.ones(len(images), device=images.device))
        old = self._columns if len(self) else tuple(part[:0] for part in fresh)
        self._columns = tuple(torch.cat(pair)[-self.capacity :] for pair in zip(old, fresh, strict=True))

    def keep_classes(self, classes: Tensor) -> None:
        """Drop the overlays whose class is not among `classes` (classes,), bool."""
        if len(self):
            kept = classes[self.logits.argmax(1)]
            self._columns = tuple(column[kept] for column in self._columns)

    @property
    def _columns(self) -> tuple[Tensor, ...]:
        return self.images, self.logits, self.masks, self.followed

    @_columns.setter
    def _columns(self, columns: tuple[Tensor, ...]) -> None:
        self.images, self.logits, self.masks, self.followed = columns


class Draw:
    """Draws what views are made of.

    Args:
        generator: the only source of randomness; its device is that of the results.
    """

    def __init__(self, generator: torch.Generator):
        self.generator = generator

    def uniform(self, count: int) -> Tensor:
        """Draw numbers (count, 1, 1, 1), uniform in [0, 1)."""
        return torch.rand(count, 1, 1, 1, generator=self.generator, device=self.generator.device)

    def chance(self, count: int, probability: float) -> Tensor:
        """Draw (count, 1, 1, 1), bool: True with a probability."""
        return self.uniform(count) < probability

    def among(self, indices: Tensor, count: int, followed: Tensor | None = None) -> Tensor:
        """Draw `count` of the indices (N,), with replacement; of those that the student followed (N,), in [0, 1],
        more often, with probabilities proportional to `RARE` + followed."""
        if followed is None:
            return indices[(self.uniform(count).flatten() * len(indices)).long()]
        return self.weighted(indices, count, RARE + followed)

    def weighted(self, indices: Tensor, count: int, weights: Tensor) -> Tensor:
        """Draw `count` of the indices (N,), with replacement and probabilities proportional to weights (N,)."""
        return indices[torch.multinomial(weights, count, replacement=True, generator=self.generator)]

    def masks(self, count: int, shape: tuple[int, ...], blend: float) -> Tensor:
        """Draw masks (count, 1, H, W) for images of a shape (..., H, W): with the probability `blend` one number for
        all pixels, otherwise a box of ones as in CutMix (arXiv 1905.04899)."""
        low, high = BLENDS
        level = low + (high - low) * self.uniform(count)
        return torch.where(self.chance(count, blend), level, boxes(count, shape, self.generator).float())

    def smaller(self, masks: Tensor) -> Tensor:
        """Make masks (N, 1, H, W) weaker in half of the cases, and cut them by a box in half of the cases."""
        count = len(masks)
        level = torch.where(self.chance(count, 0.5), WEAKEST + (1 - WEAKEST) * self.uniform(count), 1.0)
        inside = boxes(count, masks.shape, self.generator, 0.5, 1.0) | self.chance(count, 0.5)
        return masks * level * inside
