"""What still leads a student into a trap that lies outside of the domain, and the views of it that the student sees."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dfkd.defenses.carried import Carried
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
IMAGES = 256  # images of the pool on which carriers are sought
SHOWN = 16  # images on which each carrier is tried on the student
FULL = 0.15  # share of agreement from which on the student sees the full number of additional views


@dataclass(frozen=True)
class Shown:
    """Which views of a batch a student sees.

    Attributes:
        paste, blend: probabilities that an image of the batch gets a donor, and that this is blended in (otherwise a
            box is pasted), in [0, 1); blend may be 1.
        scout_rows, overlay_rows, carrier_rows: additional views per image of the batch, at least 0.
        least: smallest share of these views that is always shown, in [0, 1].

    Raises:
        ValueError: a value is out of range.
    """

    paste: float
    blend: float
    scout_rows: float
    overlay_rows: float
    carrier_rows: float
    least: float

    def __post_init__(self):
        if not 0 <= self.paste < 1 or not 0 <= self.blend <= 1 or not 0 <= self.least <= 1:
            given = f"{self.paste}, {self.blend}, {self.least}"
            raise ValueError(f"need 0 <= paste < 1, 0 <= blend <= 1, 0 <= least <= 1, got {given}")
        rows = {name: value for name, value in vars(self).items() if name.endswith("_rows")}
        if any(value < 0 for value in rows.values()):
            raise ValueError(f"none of these may be negative, got {rows}")


class Lures:
    """Finds what still leads a student into the trap, and shows it with the labels that it hides.

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
        criterion: tells robust scouts, and may name suspicious classes; scouts of other classes are then dropped.
        shown: how many views of which kind.
        scouts: draws images that mean nothing, or None for no scouts.
        scouts_at_once: number of scouts per exploration; a quarter of it while few of them are in the trap.
        seek_every: rounds from one search for carriers to the next.
        relabel: whether hidden labels are taught; False forgets these views, as ATEsc does with views of robust images.
        donors: 'robust' or 'fragile'.

    Attributes:
        carried: carriers to the class of the trap, if an audit has named one.
        nothing_robust: whether no image is called robust, since an audit sees no trap; then nothing is overlaid.
    """

    def __init__(
        self,
        criterion: Criterion,
        shown: Shown,
        scouts: Scouts | None,
        scouts_at_once: int,
        seek_every: int,
        relabel: bool,
        donors: str,
    ):
        self.criterion, self.shown, self.scouts, self.scouts_at_once = criterion, shown, scouts, scouts_at_once
        self.seek_every, self.relabel, self.donors = seek_every, relabel, donors
        self.carried: Carried | None = None
        self.nothing_robust = False
        self.trapped = Overlays(1024)  # robust scouts; their masks are not used
        self.overlays = Overlays(256)
        self.found = 1.0  # share of the scouts that were in the trap, recent ones most
        # shares of these views to which the student gives the teacher's class
        self.agreement = {"scouts": 1.0, "overlays": 1.0, "carriers": 1.0}

    def explore(
        self, number: int, teacher: Teacher, student: Classifier, pool: Pool, generator: torch.Generator
    ) -> dict[str, float]:
        """Send scouts, seek carriers when it is time, and see what the student still follows; as `Defense.explore`."""
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
        """As `Defense.views`."""
        draw, count, device = Draw(generator), len(sources), sources.images.device
        everyone = torch.arange(count, device=device)
        fragile, robust = (mask.nonzero().flatten() for mask in (sources.fragile, ~sources.fragile))
        trapped = torch.arange(count, count + len(self.trapped), device=device)
        again = torch.arange(len(self.overlays), device=device)
        for more in (self.trapped, self.overlays):
            sources = sources.followed_by(more.images, more.logits) if len(more) else sources

        def masks(rows: int) -> Tensor:
            return draw.masks(rows, sources.images.shape, self.shown.blend)

        plain = count - round(self.shown.paste * count)
        parts = [mix(sources, everyone[:plain], everyone[:plain], torch.zeros_like(sources.images[:plain, :1]))]
        parts[0].plain = plain
        shuffled = everyone[torch.randperm(count, generator=generator, device=device)]
        parts.append(mix(sources, everyone[plain:], shuffled[plain:], masks(count - plain)))
        rows = self._rows(self.shown.scout_rows * count, self.agreement["scouts"])
        if len(trapped) and rows:
            mixed = masks(rows) * draw.chance(rows, 0.5)
            base = draw.among(trapped, rows, self.trapped.followed)
            parts.append(mix(sources, base, draw.among(trapped, rows), mixed))
        donors = torch.cat([robust, trapped]) if self.donors == "robust" else fragile
        overlaid = self.relabel and not self.nothing_robust
        rows = self._rows(self.shown.overlay_rows * count, self.agreement["overlays"]) if overlaid else 0
        if len(fragile) and len(donors) and rows:
            new = rows if not len(again) else rows // 3
            parts.append(mix(sources, draw.among(fragile, new), draw.among(donors, new), masks(new)))
            if len(again):
                chosen = draw.among(again, rows - new, self.overlays.followed)
                smaller = draw.smaller(self.overlays.masks[chosen])
                first = count + len(trapped)
                parts.append(mix(sources, draw.among(fragile, rows - new), first + chosen, smaller))
        rows = round(self.shown.carrier_rows * max(self.agreement["carriers"], self.shown.least) * count)
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
        """As `Defense.teach`."""
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
        return round(most * min(1.0, max(agreement / FULL, self.shown.least)))


def _followed(student: Classifier, images: Tensor, classes: Tensor) -> Tensor:
    """Return the probability (N,) that the student gives to the class of each image."""
    return student.predict(images, len(images)).float().softmax(1).gather(1, classes[:, None])[:, 0]


def _share(student: Classifier, images: Tensor, classes: Tensor) -> float:
    """Return the share of images to which the student gives these classes."""
    return (student.predict(images, len(images)).argmax(1) == classes).float().mean().item()
