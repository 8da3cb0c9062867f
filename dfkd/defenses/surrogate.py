"""A cheap split: run a criterion on a few images of each batch, and predict its result for the others."""

import torch
from torch import Tensor

from dfkd.defenses.criteria import Control, Criterion
from dfkd.machine.runtime import Runtime
from dfkd.models import Teacher
from dfkd.pool import Split

NEWTON_STEPS = 15
FITS = 16  # fits of the regression per `memory` new answers
# Error rates above which there is a warning: over all images, and over those of one class with at least ENOUGH images.
WRONG, WRONG_IN_A_CLASS, ENOUGH = 0.15, 0.3, 50


def fit_logistic(
    x: Tensor,
    y: Tensor,
    group: Tensor,
    groups: int,
    around: Tensor | float = 0.0,
    decay: float = 1.0,
    weight: Tensor | float = 1.0,
) -> Tensor:
    """Fit one logistic regression on a scalar input per group, by Newton's method:

        argmin_(a, b)  sum_{i in group} w_i log(1 + exp(-s_i (a x_i + b))) + decay / 2 * |(a, b) - around|^2,

    s_i = 1 where y_i = 1, else -1.

    Args:
        x: inputs (N,).
        y: labels (N,), 1 or 0.
        group: group of every input (N,), in 0 .. groups - 1.
        around: (groups, 2) or (2,), centre of the penalty; also the result for a group without members.
        decay: weight of the penalty, positive.
        weight: w, of every input (N,) or of all.

    Returns:
        (a, b) of every group (groups, 2).
    """
    a, b = torch.zeros(2, groups, device=x.device)
    around = around if isinstance(around, Tensor) else torch.full((2,), around, device=x.device)
    around_a, around_b = around.expand(groups, 2).unbind(1)
    powers = torch.stack([torch.ones_like(x), x, x * x])
    for _ in range(NEWTON_STEPS):
        p = (a[group] * x + b[group]).sigmoid()
        terms = weight * torch.cat(
            [(p - y) * powers[:2], p * (1 - p) * powers]
        )  # each input's share of gradient and Hessian
        db, da, bb, ab, aa = torch.zeros(5, groups, device=x.device).index_add_(1, group, terms)
        da, db = da + decay * (a - around_a), db + decay * (b - around_b)
        aa, bb = aa + decay, bb + decay
        step = torch.stack([bb * da - ab * db, aa * db - ab * da]) / (aa * bb - ab * ab)
        step = step * (2 / step.norm(dim=0)).clamp(max=1)  # bounded, as Newton's step explodes where all p are 0 or 1
        a, b = a - step[0], b - step[1]
    return torch.stack([a, b], 1)


def fit_lines(margins: Tensor, classes: Tensor, answers: Tensor, known: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Fit a line for every class, pulled towards the line of all classes together (`Surrogate`).

    Args:
        margins, classes, answers: of N images, (N,) each.
        known: 1 for images that count, 0 for the others (N,), float.
        count: number of classes.

    Returns:
        (the lines (count, 2), for margins divided by a scale; this scale, the standard deviation of the margins).
    """
    mean = (known * margins).sum() / known.sum()
    scale = ((known * (margins - mean).square()).sum() / known.sum()).sqrt().clamp_min(1e-6)
    x, y = margins / scale, answers.float()
    common = fit_logistic(x, y, torch.zeros_like(classes), 1, weight=known)
    return fit_logistic(x, y, classes, count, around=common, weight=known), scale


class Surrogate(Control):
    """Runs another criterion on a share of every batch. For the other images, a logistic regression (the "line") on the
    teacher's logits, which are already computed, predicts the criterion's answer:

        log-odds(fragile) = a_y m + b_y,    m = largest logit - second largest, y = argmax

    (a_y, b_y) is fitted to the newest answers (`fit_logistic`) and regularised towards the fit over all classes. The
    margin m is the gap that an attack has to close; how far an attack gets depends on the class, most of all for the
    class of the trap. The score is the log-odds. To steer a generator, only the regression is used.

    Args:
        of: the criterion that is run.
        share: share of a batch on which it is run, in (0, 1]; at least one image.
        memory: number of newest answers that the regression is fitted to. Until a quarter of them are there, the
            criterion is run on all images.

    Raises:
        ValueError: a number is out of range.

    Attributes:
        tally: (2, classes): for every class, how many images the fitted regression was checked on, and how many of
            these it predicted wrongly.
    """

    def __init__(self, of: Criterion, share: float = 1 / 8, memory: int = 1024):
        super().__init__(of)
        if not 0 < share <= 1:
            raise ValueError(f"share must lie in (0, 1], got {share}")
        if memory < 4:
            raise ValueError(f"memory must be at least 4, got {memory}")
        self.share, self.memory = share, memory
        # Margins, classes and answers of the newest images that the criterion was run on. There are always `memory` of
        # them, as a CUDA graph has one size; those that are not known yet come first.
        self.margins: Tensor | None = None
        self.classes: Tensor | None = None
        self.answers: Tensor | None = None
        self.known = 0  # number of answers
        self.line: Tensor | None = None  # the regression: (a_y, b_y) of every class, for margins divided by scale
        self.scale: Tensor | None = None  # standard deviation of the margins
        self.fresh = 0  # number of answers since the last fit
        self.tally: Tensor | None = None
        self.fit = fit_lines

    def start(self, runtime: Runtime) -> None:
        super().start(runtime)
        self.fit = runtime.captured("the surrogate's line", fit_lines)

    def split(self, teacher: Teacher, images: Tensor, logits: Tensor, generator: torch.Generator) -> Split:
        count = len(images) if 4 * self.known < self.memory else max(1, round(self.share * len(images)))
        sample = torch.randperm(len(images), generator=generator, device=images.device)[:count]
        answer = self.of.split(teacher, images[sample], logits[sample], generator).fragile
        if self.line is not None:
            self.count(logits[sample], answer)
        self.learn(logits[sample], answer)
        score = self.log_odds(logits)
        fragile = score > 0
        fragile[sample] = answer
        return Split(fragile, score)

    def count(self, logits: Tensor, answers: Tensor) -> None:
        """Compare the regression's predictions with answers (B,) that it was not fitted to, and add to `tally`."""
        wrong = (self.log_odds(logits) > 0) != answers
        tally = torch.zeros(2, logits.shape[1], device=logits.device)
        tally.index_add_(1, logits.argmax(1), torch.stack([torch.ones_like(wrong), wrong]).float())
        self.tally = tally if self.tally is None else self.tally + tally

    def guess(self, teacher: Teacher, images: Tensor, logits: Tensor, generator: torch.Generator) -> Tensor:
        if self.line is None:
            return self.split(teacher, images, logits, generator).fragile
        return self.log_odds(logits) > 0

    def learn(self, logits: Tensor, answers: Tensor) -> None:
        """Add answers (B,), bool, to the memory, drop the oldest beyond `memory`, and refit the regression if enough
        answers are new."""
        margin, label = margins(logits)
        if self.answers is None:
            nothing = margin.new_zeros(self.memory)
            self.margins, self.classes, self.answers = nothing, nothing.long(), nothing.bool()
        self.margins = torch.cat([self.margins, margin])[-self.memory :]
        self.classes = torch.cat([self.classes, label])[-self.memory :]
        self.answers = torch.cat([self.answers, answers])[-self.memory :]
        self.known = min(self.memory, self.known + len(answers))
        self.fresh += len(answers)
        if self.line is not None and FITS * self.fresh < self.memory:
            return
        self.fresh = 0
        known = (torch.arange(self.memory, device=margin.device) >= self.memory - self.known).float()
        self.line, self.scale = self.fit(self.margins, self.classes, self.answers, known, logits.shape[1])

    def log_odds(self, logits: Tensor) -> Tensor:
        """Predict the log-odds of being fragile (B,) from the teacher's logits (B, classes)."""
        margin, label = margins(logits)
        slope, shift = self.line[label].unbind(1)
        return slope * margin / self.scale + shift

    def warnings(self) -> list[str]:
        warnings = self.of.warnings()
        if self.tally is None:
            return warnings
        checked, wrong = self.tally
        overall = (wrong.sum() / checked.sum()).item()
        worst, label = torch.where(checked >= ENOUGH, wrong / checked, 0.0).max(0)
        if overall > WRONG:
            share = f"{overall:.0%} of the images"
        elif worst > WRONG_IN_A_CLASS:
            share = f"{worst:.0%} of the images of class {label}"
        else:
            return warnings
        return [
            *warnings,
            f"the surrogate's line was wrong on {share} it was checked on: margins say little of this criterion's "
            f"answer there, ask it about more (defense.criterion.share), or about all (defense=atesc)",
        ]


def margins(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest logit minus the second largest (B,), and the class of the largest logit (B,)."""
    values, classes = logits.float().topk(2, dim=1)
    return values[:, 0] - values[:, 1], classes[:, 0]
