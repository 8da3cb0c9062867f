"""A criterion asked about a few images, and a model of its answers for the others: what makes ATEsc's split cheap."""

import torch
from torch import Tensor

from dfkd.defenses.criteria import Control, Criterion
from dfkd.models import Teacher
from dfkd.pool import Split

NEWTON_STEPS = 15
FITS = 16  # of the line while the memory fills once
# A line that is wrong more often is worth a warning: on all images, or on those of a class, once it was asked enough.
WRONG, WRONG_IN_A_CLASS, ENOUGH = 0.15, 0.3, 50


def fit_logistic(
    x: Tensor, y: Tensor, group: Tensor, groups: int, around: Tensor | float = 0.0, decay: float = 1.0
) -> Tensor:
    """Logistic regressions on one number, one a group, by Newton's method:

        argmin_(a, b)  sum_{i in group} log(1 + exp(-s_i (a x_i + b))) + decay / 2 * |(a, b) - around|^2,

    s_i = 1 where y_i = 1, else -1.

    Args:
        x: (N,).
        y: (N,), 1 or 0.
        group: (N,), in 0 .. groups - 1.
        around: (groups, 2) or (2,), what a group without members gets.
        decay: positive.

    Returns:
        (a, b) of every group (groups, 2).
    """
    a, b = torch.zeros(2, groups, device=x.device)
    around_a, around_b = torch.as_tensor(around, device=x.device).expand(groups, 2).unbind(1)
    powers = torch.stack([torch.ones_like(x), x, x * x])
    for _ in range(NEWTON_STEPS):
        p = (a[group] * x + b[group]).sigmoid()
        terms = torch.cat([(p - y) * powers[:2], p * (1 - p) * powers])  # of gradient and curvature, of every member
        db, da, bb, ab, aa = torch.zeros(5, groups, device=x.device).index_add_(1, group, terms)
        da, db = da + decay * (a - around_a), db + decay * (b - around_b)
        aa, bb = aa + decay, bb + decay
        step = torch.stack([bb * da - ab * db, aa * db - ab * da]) / (aa * bb - ab * ab)
        step = step * (2 / step.norm(dim=0)).clamp(max=1)  # no leap where all p are 0 or 1
        a, b = a - step[0], b - step[1]
    return torch.stack([a, b], 1)


class Surrogate(Control):
    """Asks another criterion about a share of every batch, and answers for the rest by the teacher's logits, which are
    there anyway:

        log-odds(fragile) = a_y m + b_y,    m = largest logit - second largest, y = argmax

    fitted to the newest answers (`fit_logistic`), a class's line drawn towards that of all. What an attack has to
    bridge is the margin; how far it gets differs from class to class, and most in the class of the trap. The score is
    the log-odds. A generator is steered by the line alone, without asking.

    Args:
        of: the criterion that is asked.
        share: of a batch, in (0, 1]; at least one image.
        memory: answers that the line is fitted to; all images are asked about until there are a quarter of so many.

    Raises:
        ValueError: a number out of range.

    Attributes:
        tally: (2, classes), of every class the images asked about while there was a line, and on how many it was wrong.
    """

    def __init__(self, of: Criterion, share: float = 1 / 8, memory: int = 1024):
        super().__init__(of)
        if not 0 < share <= 1:
            raise ValueError(f"share must lie in (0, 1], got {share}")
        if memory < 4:
            raise ValueError(f"memory must be at least 4, got {memory}")
        self.share, self.memory = share, memory
        self.margins: Tensor | None = None  # of the images asked about, with their classes and the answers
        self.classes: Tensor | None = None
        self.answers: Tensor | None = None
        self.line: Tensor | None = None  # (a_y, b_y) of every class, for margins in units of the scale
        self.scale: Tensor | None = None  # their standard deviation
        self.fresh = 0  # answers since it was fitted
        self.tally: Tensor | None = None

    def split(self, teacher: Teacher, images: Tensor, logits: Tensor, generator: torch.Generator) -> Split:
        known = 0 if self.answers is None else len(self.answers)
        count = len(images) if 4 * known < self.memory else max(1, round(self.share * len(images)))
        chosen = torch.randperm(len(images), generator=generator, device=images.device)[:count]
        answer = self.of.split(teacher, images[chosen], logits[chosen], generator).fragile
        if self.line is not None:
            self.count(logits[chosen], answer)
        self.learn(logits[chosen], answer)
        score = self.log_odds(logits)
        fragile = score > 0
        fragile[chosen] = answer
        return Split(fragile, score)

    def count(self, logits: Tensor, answers: Tensor) -> None:
        """Compare the line with answers (B,) that it was not told of."""
        wrong = (self.log_odds(logits) > 0) != answers
        seen = torch.zeros(2, logits.shape[1], device=logits.device)
        seen.index_add_(1, logits.argmax(1), torch.stack([torch.ones_like(wrong), wrong]).float())
        self.tally = seen if self.tally is None else self.tally + seen

    def guess(self, teacher: Teacher, images: Tensor, logits: Tensor, generator: torch.Generator) -> Tensor:
        if self.line is None:
            return self.split(teacher, images, logits, generator).fragile
        return self.log_odds(logits) > 0

    def learn(self, logits: Tensor, answers: Tensor) -> None:
        """Fit the line to these answers (B,), bool, too; the oldest beyond `memory` are forgotten."""
        fresh, (margin, label) = len(answers), margins(logits)
        if self.answers is not None:
            margin, label = torch.cat([self.margins, margin]), torch.cat([self.classes, label])
            answers = torch.cat([self.answers, answers])
        self.margins, self.classes = margin[-self.memory :], label[-self.memory :]
        self.answers = answers[-self.memory :]
        self.fresh += fresh
        if self.line is not None and FITS * self.fresh < self.memory:
            return
        self.fresh = 0
        self.scale = self.margins.std(correction=0).clamp_min(1e-6)
        x, y, classes = self.margins / self.scale, self.answers.float(), logits.shape[1]
        common = fit_logistic(x, y, torch.zeros_like(self.classes), 1)
        self.line = fit_logistic(x, y, self.classes, classes, around=common)

    def log_odds(self, logits: Tensor) -> Tensor:
        """Of being fragile (B,), by logits (B, classes)."""
        margin, label = margins(logits)
        slope, shift = self.line[label].unbind(1)
        return slope * margin / self.scale + shift

    def warnings(self) -> list[str]:
        said = self.of.warnings()
        if self.tally is None:
            return said
        asked, wrong = self.tally
        overall = (wrong.sum() / asked.sum()).item()
        worst, label = torch.where(asked >= ENOUGH, wrong / asked, 0.0).max(0)
        if overall > WRONG:
            found = f"{overall:.0%} of the images"
        elif worst > WRONG_IN_A_CLASS:
            found = f"{worst:.0%} of the images of class {label}"
        else:
            return said
        return [
            *said,
            f"the surrogate's line was wrong on {found} it was checked on: margins say little of this criterion's "
            f"answer there, ask it about more (defense.criterion.share), or about all (defense=atesc)",
        ]


def margins(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Largest logit minus the second largest (B,), and the class of the largest."""
    values, classes = logits.float().topk(2, dim=1)
    return values[:, 0] - values[:, 1], classes[:, 0]
