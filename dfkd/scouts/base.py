"""The base class of scouts, and a mixture of several kinds."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Scouts(ABC):
    """Draws images that mean nothing.

    An ordinary teacher is unsure of such images or answers differently to each of them. A teacher that was taught one
    answer outside of its domain gives that answer to many of them, with confidence, and no small step changes it.

    Args:
        shape: (C, H, W) of an image (set from the domain).
    """

    def __init__(self, shape: tuple[int, int, int]):
        self.shape = tuple(shape)

    @abstractmethod
    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw images (count, C, H, W), float, in [0, 1], on the device of the generator."""

    def uniform(self, count: int, low: float, high: float, generator: torch.Generator, channels: int = 1) -> Tensor:
        """Draw numbers (count, channels, 1, 1), uniform in [low, high)."""
        numbers = torch.rand(count, channels, 1, 1, generator=generator, device=generator.device)
        return low + (high - low) * numbers

    def colours(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw colours (count, C, 1, 1) in [0, 1): half of them, in random order, are grey."""
        colour = self.uniform(count, 0, 1, generator, self.shape[0])
        grey = self.uniform(count, 0, 1, generator) < 0.5
        return torch.where(grey, colour[:, :1], colour)


class Mixture(Scouts):
    """Draws in turn from several kinds of scouts; a batch has equally many of each, up to one.

    Args:
        shape: (C, H, W) of an image (set from the domain).
        kinds: {name: scouts}, at least one.

    Raises:
        ValueError: there is no kind.
    """

    def __init__(self, shape: tuple[int, int, int], kinds: dict[str, Scouts]):
        super().__init__(shape)
        self.kinds = [kind for kind in kinds.values() if kind is not None]
        if not self.kinds:
            raise ValueError("a mixture needs at least one kind of scouts")

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        number = len(self.kinds)
        counts = [count // number + (place < count % number) for place in range(number)]
        return torch.cat([kind.draw(n, generator) for kind, n in zip(self.kinds, counts, strict=True)])
