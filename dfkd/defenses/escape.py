"""Escape: ATEsc with the labels that a trap hides, with scouts, and with a radius of the teacher's own.

This is a method of this program. ATEsc (Hong et al., ICML 2025, arXiv 2507.04119) only makes the student forget the
teacher's class of robust images; docs/escape.md tells what was added and what each part is good for.
"""

from typing import Any

import torch
from torch import Tensor

from dfkd.defenses.atesc import ATEsc
from dfkd.defenses.criteria import Criterion
from dfkd.defenses.overlays import Draw, Overlays
from dfkd.defenses.views import Lesson, Sources, Views, inherits_robustness, join, mix
from dfkd.models import Classifier, Teacher
from dfkd.pool import Pool
from dfkd.scouts import Scouts

SURE = 0.5  # scouts of which the teacher is less sure are dropped
FIRST = 1024  # images of a finished pool that the criterion sees before the first round
SLOWNESS = 0.7  # weight of the earlier explorations in a running mean
WORTHWHILE = 0.05  # share of the scouts in the trap below which fewer are sent
FULL = 0.15  # share of agreement from which on the student sees the full number of additional views


class Escape(ATEsc):
    """Distils fragile images, forgets robust ones, and teaches the labels that robust parts hide.

    The student's batch of B pool images becomes these views:

        plain     (1 - paste) * B images as they are, with the teacher's logits from the pool
        mixed     paste * B images with a box of, or blended with, another image of the batch
        scouts    up to scout_rows * B: scouts that are robust and of which the teacher is sure, half of them mixed
        overlaid  up to overlay_rows * B: fragile images with a robust one, or an overlay that worked before

    A view is x = (1 - m) * base + m * donor. The teacher's class y of it decides, with y(base), y(donor) the classes of
    its sources:

        both sources fragile, or y is neither y(base) nor y(donor)   distil the teacher's logits for the view
        both robust, y = y(base) or y(donor)          forget y
        one fragile, one robust, y = y(robust) != y(fragile)         relabel: distil the teacher's logits for the
                                                                     fragile source
        one fragile, one robust, y = y(fragile) = y(robust)          leave out: it cannot be told which source gives y
        one fragile, one robust, y = y(fragile) != y(robust)         distil the teacher's logits for the view

    An overlay that took a fragile image to its donor's class is remembered (donor, mask), and is tried again on other
    images, smaller or weaker. The overlays thus approach the smallest part that carries the trap.

    The student sees fewer additional views as it agrees with the teacher on fewer of them: their number is multiplied
    by min(1, max(agreement / 0.15, least)).

    Args:
        criterion: decides the split. 'flip_radius' also names suspicious classes; scouts of other classes are then
            dropped.
        scouts: draws images that mean nothing, or None for no scouts.
        scouts_at_once: number of scouts per exploration; a quarter of it while few of them are in the trap.
        every: an exploration takes place in every `every`-th round.
        relabel: whether hidden labels are taught; False forgets these views, as ATEsc does with views of robust images.
        donors: 'robust', or 'fragile' as a control, in which fragile images are mixed in and take the blame.
        paste, blend: probabilities that an image of the batch gets a donor, and that this is blended in (otherwise a
            box is pasted), in [0, 1); blend may be 1.
        scout_rows, overlay_rows: additional views per image of the batch, at least 0.
        least: see above, in [0, 1].
        weight, kwargs: arguments of `ATEsc`. Relabelled views need less forgetting than ATEsc's weight of 1.

    Raises:
        ValueError: a value is out of range.
    """

    mean_loss = False  # the next views depend on the teacher's answers to these

    def __init__(
        self,
        criterion: Criterion,
        scouts: Scouts | None = None,
        scouts_at_once: int = 64,
        every: int = 5,
        relabel: bool = True,
        donors: str = "robust",
        paste: float = 0.5,
        blend: float = 0.5,
        scout_rows: float = 0.25,
        overlay_rows: float = 0.5,
        least: float = 0.25,
        weight: float = 0.2,
        **kwargs: Any,
    ):
        super().__init__(criterion, weight=weight, **kwargs)
        if donors not in ("robust", "fragile"):
            raise ValueError(f"donors must be robust or fragile, got '{donors}'")
        if not 0 <= paste < 1 or not 0 <= blend <= 1 or not 0 <= least <= 1:
            raise ValueError(f"need 0 <= paste < 1, 0 <= blend <= 1, 0 <= least <= 1, got {paste}, {blend}, {least}")
        if scouts_at_once < 1 or every < 1:
            raise ValueError(f"scouts_at_once and every must be at least 1, got {scouts_at_once} and {every}")
        if scout_rows < 0 or overlay_rows < 0:
            raise ValueError(f"scout_rows and overlay_rows must not be negative, got {scout_rows} and {overlay_rows}")
        self.scouts, self.scouts_at_once, self.every = scouts, scouts_at_once, every
        self.relabel, self.donors = relabel, donors
        self.paste, self.blend, self.least = paste, blend, least
        self.scout_rows, self.overlay_rows = scout_rows, overlay_rows
        self.trapped = Overlays(1024)  # robust scouts; their masks are not used
        self.overlays = Overlays(256)
        self.found = 1.0  # share of the scouts that were in the trap, recent ones most
        self.agreement = {"scouts": 1.0, "overlays": 1.0}  # shares on which the student gives the teacher's class

    def explore(
        self, number: int, teacher: Teacher, student: Classifier, pool: Pool, generator: torch.Generator
    ) -> dict[str, float]:
        if number % self.every:
            return {}
        with teacher.counted_as("split"):
            if (
                number == 0 and self.criterion.suspicious is None
            ):  # the split of a finished pool was made in another run
                first = slice(0, FIRST)
                self.criterion.split(teacher, pool.pixels(first), pool.logits[first], generator)
            found = 0.0 if self.scouts is None else self._send_scouts(teacher, student, generator)
        if self.criterion.suspicious is not None and self.criterion.suspicious.any():
            self.trapped.keep_classes(self.criterion.suspicious)
            self.overlays.keep_classes(self.criterion.suspicious)
        bases = pool.split.fragile.nonzero().flatten()
        if len(self.overlays) and len(bases):
            chosen = Draw(generator).among(bases, len(self.overlays))
            images = torch.lerp(pool.pixels(chosen), self.overlays.images, self.overlays.masks)
            self.agreement["overlays"] = _agreement(student, images, self.overlays.logits)
        return {f"escape/{name}": value for name, value in (self.agreement | {"trapped_scouts": found}).items()}

    def _send_scouts(self, teacher: Teacher, student: Classifier, generator: torch.Generator) -> float:
        """Draw scouts, and keep those in the trap: robust ones of which the teacher is sure. Return
        their share, averaged over the explorations so far."""
        few = self.found < WORTHWHILE
        images = self.scouts.draw(max(1, self.scouts_at_once // 4) if few else self.scouts_at_once, generator)
        logits = teacher.predict(images, len(images)).float()
        trapped = self.criterion.is_robust(teacher, images, logits, generator) & (logits.softmax(1).amax(1) > SURE)
        if self.criterion.suspicious is not None and self.criterion.suspicious.any():
            trapped &= self.criterion.suspicious[logits.argmax(1)]
        images, logits = images[trapped], logits[trapped]
        if len(images):
            now = _agreement(student, images, logits)  # before it has seen them
            self.agreement["scouts"] = SLOWNESS * self.agreement["scouts"] + (1 - SLOWNESS) * now
            self.trapped.add(images, logits, torch.ones_like(images[:, :1]))
        self.found = SLOWNESS * self.found + (1 - SLOWNESS) * trapped.float().mean().item()
        return self.found

    def views(self, sources: Sources, generator: torch.Generator) -> tuple[Sources, Views]:
        draw, count, device = Draw(generator), len(sources), sources.images.device
        everyone = torch.arange(count, device=device)
        fragile, robust = (mask.nonzero().flatten() for mask in (sources.fragile, ~sources.fragile))
        trapped = torch.arange(count, count + len(self.trapped), device=device)
        again = torch.arange(len(self.overlays), device=device)
        for more in (self.trapped, self.overlays):
            sources = sources.followed_by(more.images, more.logits) if len(more) else sources

        def masks(rows: int) -> Tensor:
            return draw.masks(rows, sources.images.shape, self.blend)

        plain = count - round(self.paste * count)
        parts = [mix(sources, everyone[:plain], everyone[:plain], torch.zeros_like(sources.images[:plain, :1]))]
        parts[0].plain = plain
        shuffled = everyone[torch.randperm(count, generator=generator, device=device)]
        parts.append(mix(sources, everyone[plain:], shuffled[plain:], masks(count - plain)))
        rows = self._rows(self.scout_rows * count, self.agreement["scouts"])
        if len(trapped) and rows:
            mixed = masks(rows) * draw.chance(rows, 0.5)
            parts.append(mix(sources, draw.among(trapped, rows), draw.among(trapped, rows), mixed))
        donors = torch.cat([robust, trapped]) if self.donors == "robust" else fragile
        rows = self._rows(self.overlay_rows * count, self.agreement["overlays"]) if self.relabel else 0
        if len(fragile) and len(donors) and rows:
            new = rows if not len(again) else rows // 3
            parts.append(mix(sources, draw.among(fragile, new), draw.among(donors, new), masks(new)))
            if len(again):
                chosen = draw.among(again, rows - new)
                smaller = draw.smaller(self.overlays.masks[chosen])
                first = count + len(trapped)
                parts.append(mix(sources, draw.among(fragile, rows - new), first + chosen, smaller))
        return sources, join(parts)

    def teach(self, sources: Sources, views: Views, logits: Tensor) -> Lesson:
        answers, labels = logits.argmax(1), sources.labels
        robust = inherits_robustness(sources, views, answers)
        if not self.relabel:
            return Lesson(logits, ~robust)
        base, donor = sources.fragile[views.base], sources.fragile[views.donor]
        of_base, of_donor = answers == labels[views.base], answers == labels[views.donor]
        takes_over = of_donor & ~of_base & base & (donor if self.donors == "fragile" else ~donor)
        self.overlays.add(sources.images[views.donor][takes_over], logits[takes_over], views.mask[takes_over])
        targets = torch.where(takes_over[:, None], sources.logits[views.base], logits)
        below = of_base & ~of_donor & ~base & donor  # the same with exchanged roles
        targets = torch.where(below[:, None], sources.logits[views.donor], targets)
        return Lesson(targets, ~(robust & ~base & ~donor), used=~((base != donor) & of_base & of_donor))

    def _rows(self, most: float, agreement: float) -> int:
        return round(most * min(1.0, max(agreement / FULL, self.least)))


@torch.no_grad()
def _agreement(student: Classifier, images: Tensor, logits: Tensor) -> float:
    """Return the share of images on which the student, in evaluation mode, gives the class of the teacher's logits."""
    mode = student.training
    same = student.eval()(images).argmax(1) == logits.argmax(1)
    student.train(mode)
    return same.float().mean().item()
