"""The radius that fits a teacher, and its suspicious classes, from synthetic images alone (`attack.eps=auto`).

Under ATEsc's premise (Hong et al., ICML 2025, arXiv 2507.04119) ID-like images flip at small radii and OOD-like images
at large ones. How large depends on the teacher.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from dfkd.attacks import PGD, first_order_radius, flip_radius
from dfkd.models import Teacher

SMALLEST, LARGEST = 2.0**-12, 2.0  # radii outside of this range are set to its ends
ENOUGH = 10  # images that a class needs before it is judged


class AutoRadius:
    """Finds the radius at which nearly all images of an ordinary class have flipped:

        eps = median over classes c of quantile_q {radius of x : x is a synthetic image that the teacher calls c}

    A trap takes its images to few classes. The other classes hold ID-like images, so the median does not depend on the
    trap as long as fewer than half of the classes are trapped. A class is suspicious if more than `most` of its images
    hold at eps; in an ordinary class that is about 1 - q of them.

    The radius of an image is a first-order estimate (`dfkd.attacks.first_order_radius`), from one teacher evaluation,
    which also gives the logits. For a few images now and then the true radius is found by bisection; the median ratio
    of the two corrects the estimates.

    Args:
        quantile: q, in (0, 1).
        most: largest share of images that hold at eps in a class that is not suspicious, in (0, 1).
        memory: number of newest images that are used.
        checks: number of newest images with a true radius that are used. The first batch provides all of them; of every
            `CHECK_EVERY`-th batch a quarter of them is replaced.

    Raises:
        ValueError: a number is out of range.

    Attributes:
        eps: the radius; None before the first images.
        suspicious: (classes,), bool; None before the first images.
    """

    CHECK_EVERY = 10

    def __init__(self, quantile: float = 0.9, most: float = 0.4, memory: int = 1024, checks: int = 32):
        if not 0 < quantile < 1 or not 0 < most < 1:
            raise ValueError(f"quantile and most must lie in (0, 1), got {quantile} and {most}")
        if memory < 1 or checks < 4:
            raise ValueError(f"memory must be at least 1 and checks at least 4, got {memory} and {checks}")
        self.quantile, self.most, self.memory, self.checks = quantile, most, memory, checks
        self.estimates: Tensor | None = None  # first-order radii of the newest images, and the classes of these images
        self.classes: Tensor | None = None
        self.ratios: Tensor | None = None  # true radius / first-order radius
        self.batches = 0
        self.eps: float | None = None
        self.suspicious: Tensor | None = None

    def observe(
        self,
        attack: PGD,
        teacher: Teacher,
        images: Tensor,
        logits: Tensor,
        generator: torch.Generator,
        estimates: Tensor | None = None,
    ) -> Tensor:
        """Update the radius with images (B, C, H, W) and the teacher's logits (B, classes); return their radii (B,).

        Args:
            attack: finds the true radii; its own radius is not used.
            estimates: first-order radii of the images (B,); computed if None.
        """
        estimates = first_order_radius(teacher, images, logits) if estimates is None else estimates
        classes = logits.argmax(1)
        if self.batches % self.CHECK_EVERY == 0:
            few = slice(0, self.checks if self.ratios is None else self.checks // 4)
            true = flip_radius(attack, teacher, images[few], logits[few], generator)
            self.ratios = _newest(self.ratios, true / estimates[few].clamp_min(SMALLEST), self.checks)
        self.batches += 1
        self.estimates = _newest(self.estimates, estimates, self.memory)
        self.classes = _newest(self.classes, classes, self.memory)
        radii = self.corrected(self.estimates)
        by_class = [radii[self.classes == c] for c in range(logits.shape[1])]
        self.eps = ordinary_radius(by_class, self.quantile)
        # NaN for a class without images, which is then not suspicious
        holding = torch.stack([(part >= self.eps).float().mean() for part in by_class])
        counts = torch.tensor([len(part) for part in by_class], device=holding.device)
        self.suspicious = (holding > self.most) & (counts >= ENOUGH)
        return self.corrected(estimates)

    def corrected(self, estimates: Tensor) -> Tensor:
        """Turn first-order radii (N,) into radii (N,)."""
        return (estimates * self.ratios.median()).nan_to_num(LARGEST, LARGEST).clamp(SMALLEST, LARGEST)


def ordinary_radius(by_class: Sequence[Tensor], quantile: float) -> float:
    """Return the median over classes of the quantile of each class's radii.

    Args:
        by_class: for every class the radii (N_c,) of its images. Classes with fewer than `ENOUGH` images do not count,
            unless all have fewer.
    """
    parts = [part for part in by_class if len(part) >= ENOUGH] or [part for part in by_class if len(part)]
    return torch.stack([part.quantile(quantile) for part in parts]).quantile(0.5).item()


def _newest(old: Tensor | None, new: Tensor, count: int) -> Tensor:
    """Append new rows to old ones, and return the last `count` of them."""
    return (new if old is None else torch.cat([old, new]))[-count:]
