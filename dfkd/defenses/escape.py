"""Escape: ATEsc with an audit, with carriers, with the labels that a trap hides, with scouts, and a radius of its own.

This is a method of this program. ATEsc (Hong et al., ICML 2025, arXiv 2507.04119) only makes the student forget the
teacher's class of robust images; docs/escape.md tells what was added and what each part is good for.
"""

from typing import Any

import torch
from torch import Tensor

from dfkd.audit import Looks, judge
from dfkd.defenses.atesc import ATEsc
from dfkd.defenses.base import Defense
from dfkd.defenses.carried import Carried
from dfkd.defenses.criteria import Criterion
from dfkd.defenses.lures import Lures, Shown
from dfkd.defenses.purified import Purified
from dfkd.defenses.views import Lesson, Sources, Views
from dfkd.models import Classifier, Teacher
from dfkd.pool import Pool, Split
from dfkd.scouts import Scouts
from dfkd.synthesizers.base import Steer

PURIFY_BY = 0.5  # share of the rounds after which a trigger is removed even if the pool lacks classes


class Escape(ATEsc):
    """Distils fragile images, forgets robust ones, and teaches the labels that a trap hides.

    An audit of the teacher (`dfkd.audit`) says first whether there is a trap, and to which class it leads. If it sees
    none, all images are distilled; if it cannot tell, there are no carriers.

    If it sees a trigger, it can be separated from what the teacher knows: after `purify_after` of the rounds, it is
    removed from a copy of the teacher, which is distilled from then on (`Purified`). A trap that lies outside of the
    domain (the teacher calls most images that mean nothing by its class) is part of what the class is for the teacher,
    so that a copy would lose the class, too. There, and where a pool is finished beforehand, the teacher itself is
    distilled, and the student sees what still leads it into the trap (`Lures`).

    Args:
        criterion: decides the split. 'flip_radius' also names suspicious classes; scouts of other classes are then
            dropped.
        scouts: draws images that mean nothing, or None for no scouts.
        scouts_at_once: number of scouts per exploration; a quarter of it while few of them are in the trap.
        every: an exploration takes place in every `every`-th round.
        relabel: whether hidden labels are taught; False forgets these views, as ATEsc does with views of robust images.
        donors: 'robust', or 'fragile' as a control, in which fragile images are mixed in and take the blame.
        paste, blend, scout_rows, overlay_rows, carrier_rows, least: which views the student sees (`lures.Shown`).
        audit: whether the teacher is audited. Without an audit there are no carriers, and none with donors='fragile'.
        seek_every: rounds from one search for carriers to the next, a multiple of `every`.
        seek_steps, seek_batch: steps of each search, and images of each step.
        purify_after: share of the rounds of an online synthesizer after which a trigger is removed from a copy of the
            teacher, in [0, 1); 0: never.
        purify_steps: the most steps of the copy's training; it ends when carriers are no longer found.
        paint_steps: steps in which images of the trap's class are made for the copy, at least 0; 0: none are made.
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
        audit: bool = True,
        carrier_rows: float = 0.5,
        purify_after: float = 0.2,
        purify_steps: int = 390,
        paint_steps: int = 150,
        seek_every: int = 30,
        seek_steps: int = 60,
        seek_batch: int = 16,
        weight: float = 0.2,
        **kwargs: Any,
    ):
        super().__init__(criterion, weight=weight, **kwargs)
        if donors not in ("robust", "fragile"):
            raise ValueError(f"donors must be robust or fragile, got '{donors}'")
        numbers = {"scouts_at_once": scouts_at_once, "every": every, "seek_every": seek_every}
        numbers |= {"seek_steps": seek_steps, "seek_batch": seek_batch, "purify_steps": purify_steps}
        if any(value < 1 for value in numbers.values()):
            raise ValueError(f"all of these must be at least 1, got {numbers}")
        if not 0 <= purify_after < 1:
            raise ValueError(f"purify_after must lie in [0, 1), got {purify_after}")
        if seek_every % every:
            raise ValueError(f"seek_every must be a multiple of every, got {seek_every} and {every}")
        if paint_steps < 0:
            raise ValueError(f"paint_steps must not be negative, got {paint_steps}")
        self.shown = Shown(paste, blend, scout_rows, overlay_rows, carrier_rows, least)
        self.lures = Lures(criterion, self.shown, scouts, scouts_at_once, seek_every, relabel, donors)
        self.every, self.audit, self.seek_steps, self.seek_batch = every, audit, seek_steps, seek_batch
        self.sees_no_trap = False  # if an audit says so
        self.outside = False  # whether the trap lies outside of the domain, and is no trigger
        self.purified: Purified | None = None  # a copy of the teacher, from which a trigger is removed
        self.purify_after, self.purify_steps, self.paint_steps = purify_after, purify_steps, paint_steps

    @property
    def carried(self) -> Carried | None:
        """Carriers to the class of the trap, if an audit has named one."""
        return self.lures.carried

    def stand_in(self, teacher: Teacher, rounds: int | None) -> Teacher:
        if self.carried is None or self.outside or not self.purify_after or rounds is None:
            return teacher
        last = (rounds - 1) // self.every * self.every  # the last exploration
        first, latest = (min(int(share * rounds), last) for share in (self.purify_after, PURIFY_BY))
        steps = self.purify_steps, self.paint_steps
        self.purified = Purified(teacher, self.carried, first, max(first, latest), *steps, self.shown)
        return self.purified.copy

    @property
    def distils_all(self) -> bool:
        """Whether no image is called robust: there is no trap, or it is removed from a copy of the teacher."""
        return self.sees_no_trap or self.purified is not None

    @property
    def needs_audit(self) -> bool:
        return self.audit

    def heed(self, looks: Looks) -> None:
        verdict = judge(looks)
        self.outside = verdict.kind == "outside"
        self.sees_no_trap = verdict.answer == "not trapped"
        self.lures.nothing_robust = self.sees_no_trap
        if self.shown.carrier_rows and self.lures.donors == "robust" and verdict.answer == "trapped":
            self.lures.carried = Carried(looks, verdict.suspect, self.seek_steps, self.seek_batch)

    def answer(self, teacher: Teacher, images: Tensor, chunk: int) -> Tensor:
        if self.distils_all:
            return Defense.answer(self, teacher, images, chunk)
        return super().answer(teacher, images, chunk)

    def split(self, teacher: Teacher, images: Tensor, logits: Tensor, generator: torch.Generator) -> Split:
        return Split.everything(images) if self.distils_all else super().split(teacher, images, logits, generator)

    def steer(self, teacher: Teacher, generator: torch.Generator) -> Steer | None:
        return None if self.distils_all else super().steer(teacher, generator)

    def warnings(self) -> list[str]:
        if self.sees_no_trap:
            return ["the audit sees no trap in this teacher, so nothing is forgotten"]
        return super().warnings()

    def explore(
        self, number: int, teacher: Teacher, student: Classifier, pool: Pool, generator: torch.Generator
    ) -> dict[str, float]:
        if number % self.every or self.sees_no_trap:
            return {}
        if self.purified is not None:
            return self.purified.explore(number, student, pool, generator)
        return self.lures.explore(number, teacher, student, pool, generator)

    def views(self, sources: Sources, generator: torch.Generator) -> tuple[Sources, Views]:
        return (self.purified or self.lures).views(sources, generator)

    def teach(self, sources: Sources, views: Views, logits: Tensor) -> Lesson:
        return (self.purified or self.lures).teach(sources, views, logits)
