"""Views that are mixed from two images each, and what the student learns from them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Sources:
    """The images that views are made of: those of a batch, and behind them those that a defense adds.

    Attributes:
        images: (N, C, H, W), float.
        logits: the teacher's logits for them (N, classes).
        fragile: (N,), bool.
        added: number of images behind those of the batch.
    """

    images: Tensor
    logits: Tensor
    fragile: Tensor
    added: int = 0

    def __len__(self) -> int:
        return len(self.images)

    @property
    def labels(self) -> Tensor:
        """The teacher's classes (N,)."""
        return self.logits.argmax(1)

    def followed_by(self, images: Tensor, logits: Tensor) -> "Sources":
        """Return these sources, and behind them further ones, all robust."""
        robust = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        pairs = zip((self.images, self.logits, self.fragile), (images, logits, robust), strict=True)
        return Sources(*map(torch.cat, pairs), added=self.added + len(images))

    def of_batch(self, index: Tensor) -> Tensor:
        """Return which of the indices (B,) are those of images of the batch, (B,), bool."""
        return index < len(self) - self.added


@dataclass
class Views:
    """Views of images.

    Attributes:
        images: (B, C, H, W), float.
        base, donor: (B,), indices of the two sources of every view; equal where nothing was mixed in.
        mask: (B, 1, H, W), in [0, 1], the weight of the donor's pixels (`mix`); None if the views were made otherwise.
        plain: number of views at the front that are their base itself, so that the teacher's logits are known.
    """

    images: Tensor
    base: Tensor
    donor: Tensor
    mask: Tensor | None = None
    plain: int = 0

    def known_first(self, known: Tensor) -> "Views":
        """Return the views in an order in which those whose answer is taken to be that of their base, `known` (B,),
        bool, come first, as plain ones."""
        order = torch.argsort(~known, stable=True)
        mask = None if self.mask is None else self.mask[order]
        return Views(self.images[order], self.base[order], self.donor[order], mask, plain=int(known.sum()))

    def slice(self, part: slice) -> "Views":
        """Return a slice of views without plain ones at the front."""
        return Views(self.images[part], self.base[part], self.donor[part])


@dataclass
class Lesson:
    """What the student learns from views.

    Attributes:
        targets: logits (B, classes) that it is distilled to, or whose class it forgets.
        fragile: (B,), bool: which views are distilled; the others are forgotten.
        used: (B,), bool: which views are used at all; None means all of them.
    """

    targets: Tensor
    fragile: Tensor
    used: Tensor | None = None


def mix(sources: Sources, base: Tensor, donor: Tensor, mask: Tensor) -> Views:
    """Mix two sources into each view:  (1 - mask) * base + mask * donor.

    Args:
        base, donor: indices of the sources (B,).
        mask: (B, 1, H, W), in [0, 1].
    """
    return Views(torch.lerp(sources.images[base], sources.images[donor], mask), base, donor, mask)


def join(parts: Sequence[Views]) -> Views:
    """Concatenate mixed views of the same sources; only the first part may have plain ones."""
    columns = ((part.images, part.base, part.donor, part.mask) for part in parts)
    return Views(*map(torch.cat, zip(*columns, strict=True)), plain=parts[0].plain)


def inherits_robustness(sources: Sources, views: Views, answers: Tensor) -> Tensor:
    """Return which views are robust (B,), bool: the teacher gives them the class of a robust source of theirs.

    Args:
        answers: the teacher's classes of the views (B,).
    """
    robust, labels = ~sources.fragile, sources.labels
    by_base = robust[views.base] & (answers == labels[views.base])
    return by_base | (robust[views.donor] & (answers == labels[views.donor]))
