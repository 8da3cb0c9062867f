"""The way out of a trigger: it is removed from a copy of the teacher, which is then distilled in its place."""

import torch
from torch import Tensor

from dfkd.defenses.carried import Carried
from dfkd.defenses.lures import SHOWN, Shown
from dfkd.defenses.overlays import Draw
from dfkd.defenses.stand_in import IMAGES, StandIn
from dfkd.defenses.views import Lesson, Sources, Views, join, mix
from dfkd.models import Classifier, Teacher
from dfkd.pool import Pool

LEAST = 0.05  # of its fair share of the pool that every other class has to have before the trigger is removed
PAINTED = 64  # images of the trap's class that are made when it is removed
OWN_ROWS = 1 / 8  # views of them, per image of the batch


class Purified:
    """A copy of a teacher from which a trigger is removed (`StandIn.purify`), and the views that a student sees of it.

    Before the removal, the copy is the teacher. It takes place as soon as the pool has images of all classes but the
    trap's, so that the copy forgets none of them. From then on the student's batch of B pool images becomes

        plain     1 - paste of the sources as they are, with the copy's logits
        mixed     paste of them, with a box of, or blended with, another source
        carried   up to carrier_rows * B: sources under a carrier, with the copy's logits without it, as long as the
                  student follows carriers

    where sources are the B images and B / 8 painted ones. The pool has no image of the trap's class but trapped ones,
    and what the generator makes of this class for the copy seldom shows it; so `PAINTED` images of the class are made
    by inversion of the copy (`StandIn.paint`). All views are distilled.

    Args:
        teacher: stays as it is.
        carried: carriers to the trap's class.
        first: round from which on the trigger may be removed.
        latest: round from which on it is removed in any case.
        steps: the most steps of the copy's training.
        paint_steps: steps in which images of the trap's class are made; 0: none are made.
        shown: `paste`, `blend`, `carrier_rows` and `least` of the views.
    """

    def __init__(
        self,
        teacher: Teacher,
        carried: Carried,
        first: int,
        latest: int,
        steps: int,
        paint_steps: int,
        shown: Shown,
    ):
        self.copy, self.carried = StandIn(teacher), carried
        self.first, self.latest, self.steps, self.paint_steps = first, latest, steps, paint_steps
        self.shown, self.done = shown, False
        self.own: Tensor | None = None  # painted images of the trap's class (N, C, H, W),
        self.own_logits: Tensor | None = None  # and the copy's logits for them (N, classes)
        self.agreement = 1.0  # share of carried views in which the student follows the carrier

    def explore(self, number: int, student: Classifier, pool: Pool, generator: torch.Generator) -> dict[str, float]:
        """Remove the trigger when it is time. Later see how many images the carriers carry for the student.

        Returns:
            metrics for the log.
        """
        if not self.done and number >= self.first and (number >= self.latest or self._has_all_classes(pool)):
            with self.copy.counted_as("split"):
                self._remove(pool, generator)
            self.done = True
        others = (pool.logits.argmax(1) != self.carried.target).nonzero().flatten()
        if len(self.carried) and len(others):
            images = pool.pixels(Draw(generator).among(others, SHOWN))
            self.agreement = self.carried.look(student.predict, images)
        return {"escape/carriers": self.agreement, "escape/purified": float(self.done)}

    def _has_all_classes(self, pool: Pool) -> bool:
        counts = pool.logits.argmax(1).bincount(minlength=pool.logits.shape[1])
        counts[self.carried.target] = len(pool)
        return counts.min().item() >= LEAST * len(pool) / len(counts)

    def _remove(self, pool: Pool, generator: torch.Generator) -> None:
        """Remove the trigger from the copy, label the pool with its answers, and paint images of the trap's class."""
        images, target = pool.pixels(), self.carried.target
        self.copy.purify(self.carried, images, pool.logits, self.steps, generator)
        pool.logits = self.copy.predict(images)
        others = (pool.logits.argmax(1) != target).nonzero().flatten()
        if self.paint_steps and len(others):
            some = images[Draw(generator).among(others, IMAGES)]
            self.own = self.copy.paint(target, some, PAINTED, self.paint_steps, generator)
            self.own_logits = self.copy.predict(self.own)

    def views(self, sources: Sources, generator: torch.Generator) -> tuple[Sources, Views]:
        """As `Defense.views`."""
        draw, count, device = Draw(generator), len(sources), sources.images.device
        if self.own is not None:
            chosen = draw.among(torch.arange(len(self.own), device=device), round(OWN_ROWS * count))
            sources = sources.followed_by(self.own[chosen], self.own_logits[chosen])
        everyone = torch.randperm(len(sources), generator=generator, device=device)
        plain, mixed = everyone.tensor_split([len(sources) - round(self.shown.paste * len(sources))])
        donors = torch.randperm(len(sources), generator=generator, device=device)[: len(mixed)]
        masks = draw.masks(len(mixed), sources.images.shape, self.shown.blend)
        parts = [mix(sources, plain, plain, torch.zeros_like(sources.images[plain, :1]))]
        parts[0].plain = len(plain)
        others = (sources.labels != self.carried.target).nonzero().flatten()
        rows = round(self.shown.carrier_rows * max(self.agreement, self.shown.least) * count)
        if len(self.carried) and len(others) and rows:
            base = draw.among(others, rows)
            carried = self.carried.views(sources.images[base], generator)
            parts.append(Views(carried, base, base, torch.zeros_like(carried[:, :1])))
        known = sum(len(part.images) for part in parts)
        views = join([*parts, mix(sources, mixed, donors, masks)])
        views.plain = known  # the answer to a carried view is that without the carrier
        return sources, views

    def teach(self, sources: Sources, views: Views, logits: Tensor) -> Lesson:
        """As `Defense.teach`: every view is distilled."""
        return Lesson(logits, torch.ones(len(logits), dtype=torch.bool, device=logits.device))
