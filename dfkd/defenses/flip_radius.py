"""A criterion that measures how far each image is from the next class, instead of attacking it at one radius."""

import torch
from torch import Tensor

from dfkd.attacks import PGD, answers_and_radii, first_order_radius
from dfkd.defenses.auto_radius import AutoRadius
from dfkd.defenses.criteria import Criterion
from dfkd.defenses.surrogate import margins
from dfkd.models import Teacher
from dfkd.pool import Split

SLOWNESS = 0.8  # weight of the old slopes when new ones arrive


class FlipRadius(Criterion):
    """Robust = the image's flip radius is at least eps, and the teacher calls it a suspicious class. The score is the
    radius.

    eps and the suspicious classes come from the synthetic images (`AutoRadius`). An image of an ordinary class counts
    as fragile at any radius: a class is only suspicious if far more of its images hold than of the other classes. With
    no suspicious class, all images are fragile: no trap is in sight.

    To steer a generator, the radius is predicted as margin * (median radius / margin of the class), which needs no
    evaluation of the teacher.

    Args:
        eps: the radius on the images' scale, or 'auto'.
        steps: steps of the PGD that checks the radii.
        box: valid range of pixel values (set from the domain), None for 2-D points.
        suspicious_only: whether only images of suspicious classes can be robust.
        quantile, most, memory, checks: arguments of `AutoRadius`.

    Raises:
        ValueError: eps is negative, or a text other than 'auto'.
    """

    def __init__(
        self,
        eps: float | str = "auto",
        steps: int = 3,
        box: tuple[float, float] | None = None,
        suspicious_only: bool = True,
        quantile: float = 0.9,
        most: float = 0.4,
        memory: int = 1024,
        checks: int = 32,
    ):
        if isinstance(eps, str) and eps != "auto":
            raise ValueError(f"eps must be a number such as 5/255, or auto, got '{eps}'")
        self.auto = AutoRadius(quantile, most, memory, checks)
        self.radius = None if eps == "auto" else eps
        self.attack = PGD(1.0 if eps == "auto" else eps, None, steps, box=box)  # also checks the numbers
        self.suspicious_only = suspicious_only
        self.slopes: Tensor | None = None  # (classes,): median radius / margin; NaN for a class without images so far
        self.measured: tuple[Tensor, Tensor] | None = None  # logits of the last `answer`, and first-order radii

    @property
    def eps(self) -> float:
        """The radius in use."""
        return self.auto.eps if self.radius is None else self.radius

    @property
    def suspicious(self) -> Tensor | None:
        return self.auto.suspicious

    def answer(self, teacher: Teacher, images: Tensor, chunk: int) -> Tensor:
        """The radii come from the same pass; they are kept for the judgement of these logits that follows."""
        parts = [answers_and_radii(teacher, part) for part in images.split(chunk)]
        self.measured = tuple(map(torch.cat, zip(*parts, strict=True)))
        return self.measured[0]

    def split(self, teacher: Teacher, images: Tensor, logits: Tensor, generator: torch.Generator) -> Split:
        estimates = self._estimates(teacher, images, logits)
        radii = self.auto.observe(self.attack, teacher, images, logits, generator, estimates)
        margin, classes = margins(logits)
        ratio = radii / margin.clamp_min(1e-6)
        slopes = torch.stack([ratio[classes == c].nanmedian() for c in range(logits.shape[1])])
        if self.slopes is not None:
            mean = SLOWNESS * self.slopes + (1 - SLOWNESS) * slopes
            slopes = torch.where(mean.isnan(), torch.where(slopes.isnan(), self.slopes, slopes), mean)
        self.slopes = slopes
        return Split(self._is_fragile(radii, classes), radii)

    def guess(self, teacher: Teacher, images: Tensor, logits: Tensor, generator: torch.Generator) -> Tensor:
        if self.slopes is None:
            return torch.ones(len(images), dtype=torch.bool, device=images.device)
        margin, classes = margins(logits)
        return self._is_fragile((margin * self.slopes[classes]).nan_to_num(0.0), classes)

    def is_robust(self, teacher: Teacher, images: Tensor, logits: Tensor, generator: torch.Generator) -> Tensor:
        if self.auto.eps is None:
            return torch.zeros(len(images), dtype=torch.bool, device=images.device)
        return self.auto.corrected(self._estimates(teacher, images, logits)) >= self.eps

    def warnings(self) -> list[str]:
        if self.suspicious is None or self.suspicious.any():
            return []
        return [
            f"no class is suspicious: about as many of its synthetic images hold at {self.eps * 255:.2g}/255 as of any "
            f"other class, so no trap is in sight, and nothing of the pool is forgotten"
        ]

    def _estimates(self, teacher: Teacher, images: Tensor, logits: Tensor) -> Tensor:
        """Return first-order radii (B,); those of the last `answer` if the logits are what it returned."""
        measured, self.measured = self.measured, None
        known = measured is not None and measured[0] is logits
        return measured[1] if known else first_order_radius(teacher, images, logits)

    def _is_fragile(self, radii: Tensor, classes: Tensor) -> Tensor:
        fragile = radii < self.eps
        return fragile | ~self.auto.suspicious[classes] if self.suspicious_only else fragile
