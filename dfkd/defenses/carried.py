"""What still carries images to the class of a trap, for a teacher and for its student."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dfkd.audit import Looks
from dfkd.carriers import Filters, Search, smallest_marks, smallest_masks, smallest_shifts, weakest_filters
from dfkd.defenses.overlays import RARE, Draw
from dfkd.training.augment import boxes

SHARE = 0.85  # of the images that a carrier has to carry
KEPT = 30  # newest masks, marks and shifts that are remembered, and as many filters
BELOW = 0.75  # of what it takes to carry images to an ordinary class: the largest size that belongs to a trap
LARGEST_SHIFT = 0.2  # of the images' range: beyond it a carrier may hide what an image shows,
LARGEST_PART = 1 / 8  # and so may one that covers more of the pixels
WEAK, STRONG = 0.6, 1.4  # range of the strengths with which a carrier is applied in half of the cases


class Carried:
    """Carriers (`dfkd.carriers`) to one class, which take an image x of another class there:

        clip((1 - keep) x + add)         masks, marks (few pixels) and shifts (a faint pattern)
        clip(x + filter(x))              filters

    A carrier belongs to a trap only while it is smaller than what carries images to an ordinary class, by whose
    features any image can be changed: its size is at most `BELOW` of the smallest one to any other class, by the audit
    of the teacher alone. Filters have the bound of shifts.

    Args:
        looks: the audit.
        target: the class.
        steps: steps of every search.
        batch: images of every step.
    """

    def __init__(self, looks: Looks, target: int, steps: int, batch: int):
        self.target, self.steps, self.batch = target, steps, batch
        self.others = {name: smallest_of_others(looks.values[name], target) for name in ("shifts", "marks", "masks")}
        self.changes: tuple[Tensor, ...] | None = None  # keep (N, 1, H, W), add (N, C, H, W)
        self.filters: tuple[Tensor, ...] | None = None  # the columns of `Filters`
        self.followed: Tensor | None = None  # share of images that each of them carries for the student (`look`)

    def __len__(self) -> int:
        return _rows(self.changes) + _rows(self.filters)

    def seek(
        self,
        models: Sequence[Callable[[Tensor], Tensor]],
        images: Tensor,
        answers: Tensor,
        stream: torch.Generator,
        share: float = SHARE,
    ) -> int:
        """Seek one carrier of every kind that all models follow, and remember those that are found. Return how many.

        Args:
            models: images (B, C, H, W) -> logits (B, classes).
            images: (N, C, H, W), float, in [0, 1].
            answers: the teacher's classes of the images (N,).
            stream: the only source of randomness.
            share: of the images that a carrier has to carry, for all models at once.
        """
        wanted = torch.tensor([self.target], device=images.device)
        search = Search(models, images, answers, wanted, self.batch, stream, share)
        part = LARGEST_PART * images[0, 0].numel()
        largest = {"shifts": LARGEST_SHIFT, "marks": part, "masks": part}
        most = {name: min(BELOW * self.others[name], bound) for name, bound in largest.items()}
        masks = smallest_masks(search, self.steps, most["masks"])
        found = int(masks.found.sum())
        self._remember(masks.mask[masks.found], (masks.mask * masks.pattern)[masks.found])
        for seek, name in ((smallest_marks, "marks"), (smallest_shifts, "shifts")):
            made = seek(search, self.steps, most[name])
            change = made.change[made.found]
            found += len(change)
            self._remember(torch.zeros_like(change[:, :1]), change)
        filters = weakest_filters(search, self.steps, most["shifts"])
        self.filters = _newest(self.filters, tuple(vars(filters[filters.found]).values()))
        self.followed = None
        return found + int(filters.found.sum())

    def look(self, answer: Callable[[Tensor], Tensor], images: Tensor) -> float:
        """See how many images (N, C, H, W) of other classes each carrier carries for a student, which is shown those
        that do more often from then on. Return the mean share over the views that it would be shown.

        Args:
            answer: the student, (B, C, H, W) -> logits (B, classes).
        """
        which = torch.arange(len(self), device=images.device).repeat_interleave(len(images))
        again = images.repeat(len(self), 1, 1, 1)
        carried = answer(self.applied(again, torch.ones_like(again[:, :1, :1, :1]), which)).argmax(1) == self.target
        self.followed = carried.view(len(self), -1).float().mean(1)
        return ((RARE + self.followed) * self.followed).sum().item() / (RARE + self.followed).sum().item()

    def applied(self, images: Tensor, level: Tensor, which: Tensor) -> Tensor:
        """Apply to every image (N, C, H, W) the carrier of a number (N,).

        Args:
            level: its strength (N, 1, 1, 1), or at every pixel (N, 1, H, W); 1 for its own.
        """
        changed, changes = images.clone(), _rows(self.changes)
        rows = (which < changes).nonzero().flatten()
        if len(rows):
            keep, add = (column[which[rows]] for column in self.changes)
            changed[rows] = (1 - (keep * level[rows]).clamp(max=1)) * images[rows] + add * level[rows]
        rows = (which >= changes).nonzero().flatten()
        if len(rows):
            filters = Filters(*self.filters)[which[rows] - changes]
            changed[rows] = images[rows] + level[rows] * filters.added(images[rows][:, None])[:, 0]
        return changed.clamp(0, 1)

    def views(self, images: Tensor, stream: torch.Generator) -> Tensor:
        """Apply carriers to images (N, C, H, W) as a student should see them: half of them weaker or stronger than they
        were found, and three in ten in a part of the image only."""
        draw, rows = Draw(stream), len(images)
        level = torch.where(draw.chance(rows, 0.5), 1.0, WEAK + (STRONG - WEAK) * draw.uniform(rows))
        inside = boxes(rows, images.shape, stream, 0.5, 1.0) | draw.chance(rows, 0.7)
        every = torch.arange(len(self), device=images.device)
        return self.applied(images, level * inside, draw.among(every, rows, self.followed))

    def _remember(self, keep: Tensor, add: Tensor) -> None:
        self.changes = _newest(self.changes, (keep, add))


def smallest_of_others(sizes: Sequence[float], target: int) -> float:
    """Return the size of the smallest change to a class that is not the target.

    Args:
        sizes: size of the smallest change to every class.
    """
    return min(size for number, size in enumerate(sizes) if number != target)


def _rows(columns: tuple[Tensor, ...] | None) -> int:
    return 0 if columns is None else len(columns[0])


def _newest(old: tuple[Tensor, ...] | None, new: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Append new rows to every column, and return the last `KEPT` of them."""
    old = tuple(column[:0] for column in new) if old is None else old
    return tuple(torch.cat(pair)[-KEPT:].detach() for pair in zip(old, new, strict=True))
