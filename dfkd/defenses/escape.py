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
from dfkd.defenses.overlays import Draw, Overlays
from dfkd.defenses.purified import SHOWN, Purified
from dfkd.defenses.views import Lesson, Sources, Views, inherits_robustness, join, mix
from dfkd.models import Classifier, Teacher
from dfkd.pool import Pool, Split
from dfkd.scouts import Scouts
from dfkd.synthesizers.base import Steer

SURE = 0.5  # scouts of which the teacher is less sure are dropped
FIRST = 1024  # images of a finished pool that the criterion sees before the first round
SLOWNESS = 0.7  # weight of the earlier explorations in a running mean
WORTHWHILE = 0.05  # share of the scouts in the trap below which fewer are sent
IMAGES = 256  # images of the pool on which carriers are sought
FULL = 0.15  # share of agreement from which on the student sees the full number of additional views


class Escape(ATEsc):
    """Distils fragile images, forgets robust ones, and teaches the labels that a trap hides.

    An audit of the teacher (`dfkd.audit`) says first whether there is a trap, and to which class it leads. If it sees
    none, all images are distilled; if it cannot tell, there are no carriers.

    If it sees a trigger, it can be separated from what the teacher knows: after `purify_after` of the rounds, it is
    removed from a copy of the teacher, which is distilled from then on (`Purified`). A trap that lies outside of the
    domain (the teacher calls most images that mean nothing by its class) is part of what the class is for the teacher,
    so that a copy would lose the class, too; there, and where a pool is finished beforehand, the teacher itself is
    distilled, as follows.

    The student's batch of B pool images becomes these views:

        plain     (1 - paste) * B images as they are, with the teacher's logits from the pool
        mixed     paste * B images with a box of, or blended with, another image of the batch
        scouts    up to scout_rows * B: scouts that are robust and of which the teacher is sure, half of them mixed
        overlaid  up to overlay_rows * B: fragile images with a robust one, or an overlay that worked before
        carried   up to carrier_rows * B: fragile images under a carrier

    A carried view has the teacher's logits for its base, whether or not the carrier works there, so that the teacher is
    not asked (with relabel=False it is, and what carries is forgotten). Another view is x = (1 - m) * base + m * donor,
    and the teacher's class y of it decides, with y(base), y(donor) the classes of its sources:

        both sources fragile, or y is neither y(base) nor y(donor)   distil the teacher's logits for the view
        both robust, y = y(base) or y(donor)          forget y; with carriers, only if one is a scout
        one fragile, one robust, y = y(robust) != y(fragile)         relabel: distil the teacher's logits for the
                                                                     fragile source
        one fragile, one robust, y = y(fragile) = y(robust)          leave out: it cannot be told which source gives y
        one fragile, one robust, y = y(fragile) != y(robust)         distil the teacher's logits for the view

    A carrier is a small change that takes images of other classes to the trap's class (`Carried`). They are sought
    again every `seek_every` rounds, by gradients of both networks: changes with which the teacher says the trap's class
    and the student still follows. So the student is shown what it has not yet unlearned. This is the idea of I-BAU
    (Zeng et al., ICLR 2022, arXiv 2110.03735), which takes clean images and one network, for synthetic images and two.

    An overlay that took a fragile image to its donor's class is remembered (donor, mask), and is tried again on other
    images, smaller or weaker. The overlays thus approach the smallest part that carries the trap.

    The student is shown more often the scouts, overlays and carriers that it still followed when it was last looked at
    (`Draw.among`). It sees fewer of these views in all as it agrees with the teacher on fewer of them: the number of
    scouts and overlays is multiplied by min(1, max(agreement / 0.15, least)), that of carried views by max(agreement,
    least).

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
        scout_rows, overlay_rows, carrier_rows: additional views per image of the batch, at least 0.
        least: smallest share of these views, see above, in [0, 1].
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
        purify_steps: int = 600,
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
        if not 0 <= paste < 1 or not 0 <= blend <= 1 or not 0 <= least <= 1:
            raise ValueError(f"need 0 <= paste < 1, 0 <= blend <= 1, 0 <= least <= 1, got {paste}, {blend}, {least}")
        numbers = {"scouts_at_once": scouts_at_once, "every": every, "seek_every": seek_every}
        numbers |= {"seek_steps": seek_steps, "seek_batch": seek_batch, "purify_steps": purify_steps}
        if any(value < 1 for value in numbers.values()):
            raise ValueError(f"all of these must be at least 1, got {numbers}")
        if not 0 <= purify_after < 1:
            raise ValueError(f"purify_after must lie in [0, 1), got {purify_after}")
        if seek_every % every:
            raise ValueError(f"seek_every must be a multiple of every, got {seek_every} and {every}")
        rows = {"scout_rows": scout_rows, "overlay_rows": overlay_rows, "carrier_rows": carrier_rows}
        rows |= {"paint_steps": paint_steps}
        if any(value < 0 for value in rows.values()):
            raise ValueError(f"none of these may be negative, got {rows}")
        self.scouts, self.scouts_at_once, self.every = scouts, scouts_at_once, every
        self.relabel, self.donors = relabel, donors
        self.paste, self.blend, self.least = paste, blend, least
        self.scout_rows, self.overlay_rows, self.carrier_rows = scout_rows, overlay_rows, carrier_rows
        self.audit, self.seek_every, self.seek_steps, self.seek_batch = audit, seek_every, seek_steps, seek_batch
        self.carried: Carried | None = None  # if an audit names a class
        self.sees_no_trap = False  # if an audit says so
        self.outside = False  # whether the trap lies outside of the domain, and is no trigger
        self.purified: Purified | None = None  # a copy of the teacher, from which a trigger is removed
        self.purify_after, self.purify_steps, self.paint_steps = purify_after, purify_steps, paint_steps
        self.trapped = Overlays(1024)  # robust scouts; their masks are not used
        self.overlays = Overlays(256)
        self.found = 1.0  # share of the scouts that were in the trap, recent ones most
        # shares of these views to which the student gives the teacher's class
        self.agreement = {"scouts": 1.0, "overlays": 1.0, "carriers": 1.0}

    def stand_in(self, teacher: Teacher, rounds: int | None) -> Teacher:
        if self.carried is None or self.outside or not self.purify_after or rounds is None:
            return teacher
        first, shown = int(self.purify_after * rounds), (self.paste, self.blend, self.carrier_rows, self.least)
        steps = self.purify_steps, self.paint_steps
        self.purified = Purified(teacher, self.carried, first, rounds, *steps, *shown)
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
        if self.carrier_rows and self.donors == "robust" and verdict.answer == "trapped":
            self.carried = Carried(looks, verdict.suspect, self.seek_steps, self.seek_batch)

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
        with teacher.counted_as("split"):
            # the split of a finished pool was made in another run
            if number == 0 and self.criterion.suspicious is None:
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
            self.overlays.followed = _followed(student, images, self.overlays.logits.argmax(1))
            self.agreement["overlays"] = _share(student, images, self.overlays.logits.argmax(1))
        if len(self.trapped):
            self.trapped.followed = _followed(student, self.trapped.images, self.trapped.logits.argmax(1))
        if self.carried is not None and len(bases):
            self._carry(number, teacher, student, pool, bases, generator)
        return {f"escape/{name}": value for name, value in (self.agreement | {"trapped_scouts": found}).items()}

    def _carry(
        self,
        number: int,
        teacher: Teacher,
        student: Classifier,
        pool: Pool,
        bases: Tensor,
        generator: torch.Generator,
    ) -> None:
        """Now and then seek carriers that teacher and student follow (in the first round, before the student has
        learned anything, those that the teacher follows), and see how many images the known ones carry."""
        draw = Draw(generator)
        if number % self.seek_every == 0:
            chosen = draw.among(bases, IMAGES)
            mode = student.training
            models = (teacher, student.eval()) if number else (teacher,)
            with teacher.counted_as("split"):
                self.carried.seek(models, pool.pixels(chosen), pool.logits[chosen].argmax(1), generator)
            student.train(mode)
        others = bases[pool.logits[bases].argmax(1) != self.carried.target]
        if len(self.carried) and len(others):
            self.agreement["carriers"] = self.carried.look(student.predict, pool.pixels(draw.among(others, SHOWN)))

    def _send_scouts(self, teacher: Teacher, student: Classifier, generator: torch.Generator) -> float:
        """Draw scouts, and keep those in the trap: robust ones of which the teacher is sure. Return their share,
        averaged over the explorations so far."""
        few = self.found < WORTHWHILE
        images = self.scouts.draw(max(1, self.scouts_at_once // 4) if few else self.scouts_at_once, generator)
        logits = self.criterion.answer(teacher, images, len(images))
        trapped = self.criterion.is_robust(teacher, images, logits, generator) & (logits.softmax(1).amax(1) > SURE)
        if self.criterion.suspicious is not None and self.criterion.suspicious.any():
            trapped &= self.criterion.suspicious[logits.argmax(1)]
        images, logits = images[trapped], logits[trapped]
        if len(images):
            now = _share(student, images, logits.argmax(1))  # before it has seen them
            self.agreement["scouts"] = SLOWNESS * self.agreement["scouts"] + (1 - SLOWNESS) * now
            self.trapped.add(images, logits, torch.ones_like(images[:, :1]))
        self.found = SLOWNESS * self.found + (1 - SLOWNESS) * trapped.float().mean().item()
        return self.found

    def views(self, sources: Sources, generator: torch.Generator) -> tuple[Sources, Views]:
        if self.purified is not None:
            return self.purified.views(sources, generator)
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
            base = draw.among(trapped, rows, self.trapped.followed)
            parts.append(mix(sources, base, draw.among(trapped, rows), mixed))
        donors = torch.cat([robust, trapped]) if self.donors == "robust" else fragile
        overlaid = self.relabel and not self.sees_no_trap  # nothing is robust then
        rows = self._rows(self.overlay_rows * count, self.agreement["overlays"]) if overlaid else 0
        if len(fragile) and len(donors) and rows:
            new = rows if not len(again) else rows // 3
            parts.append(mix(sources, draw.among(fragile, new), draw.among(donors, new), masks(new)))
            if len(again):
                chosen = draw.among(again, rows - new, self.overlays.followed)
                smaller = draw.smaller(self.overlays.masks[chosen])
                first = count + len(trapped)
                parts.append(mix(sources, draw.among(fragile, rows - new), first + chosen, smaller))
        rows = round(self.carrier_rows * max(self.agreement["carriers"], self.least) * count)
        if self.carried is not None and len(self.carried) and len(fragile) and rows:
            sources = sources.followed_by(*self._one_of_the_trap(sources))
            base = draw.among(fragile, rows)
            images = self.carried.views(sources.images[base], generator)
            donor = torch.full_like(base, len(sources) - 1)
            parts.append(Views(images, base, donor, torch.zeros_like(images[:, :1])))
        views = join(parts)
        known = ~views.mask.flatten(1).any(1)  # the base itself, or a carrier on it
        if not self.relabel:  # whether a carrier works has to be asked
            known &= views.base == views.donor
        return sources, views.known_first(known)

    def _one_of_the_trap(self, sources: Sources) -> tuple[Tensor, Tensor]:
        """Return an image and logits that stand for the donor of all carriers: only its class counts."""
        logits = torch.zeros_like(sources.logits[:1])
        logits[:, self.carried.target] = 1.0
        return torch.zeros_like(sources.images[:1]), logits

    def teach(self, sources: Sources, views: Views, logits: Tensor) -> Lesson:
        if self.purified is not None:
            return self.purified.teach(logits)
        answers, labels = logits.argmax(1), sources.labels
        robust = inherits_robustness(sources, views, answers)
        if not self.relabel:
            return Lesson(logits, ~robust)
        base, donor = sources.fragile[views.base], sources.fragile[views.donor]
        of_base, of_donor = answers == labels[views.base], answers == labels[views.donor]
        takes_over = of_donor & ~of_base & base & (donor if self.donors == "fragile" else ~donor)
        carried = ~views.mask.flatten(1).any(1) & (views.base != views.donor)  # views of carriers have an empty mask
        seen = takes_over & ~carried
        self.overlays.add(sources.images[views.donor][seen], logits[seen], views.mask[seen])
        targets = torch.where(takes_over[:, None], sources.logits[views.base], logits)
        below = of_base & ~of_donor & ~base & donor  # the same with exchanged roles
        targets = torch.where(below[:, None], sources.logits[views.donor], targets)
        forgotten = robust & ~base & ~donor
        if self.carried is not None:  # carriers tell the trap from the class; these are the only images of the class
            forgotten &= ~(sources.of_batch(views.base) & sources.of_batch(views.donor))
        return Lesson(targets, ~forgotten, used=carried | ~((base != donor) & of_base & of_donor))

    def _rows(self, most: float, agreement: float) -> int:
        return round(most * min(1.0, max(agreement / FULL, self.least)))


def _followed(student: Classifier, images: Tensor, classes: Tensor) -> Tensor:
    """Return the probability (N,) that the student gives to the class of each image."""
    return student.predict(images, len(images)).float().softmax(1).gather(1, classes[:, None])[:, 0]


def _share(student: Classifier, images: Tensor, classes: Tensor) -> float:
    """Return the share of images to which the student gives these classes."""
    return (student.predict(images, len(images)).argmax(1) == classes).float().mean().item()
