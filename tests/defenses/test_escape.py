"""Escape: what a view teaches, what is remembered, and that a student gets away with the labels under the trap."""

import itertools

import pytest
import torch

from dfkd.audit import Looks
from dfkd.defenses import ATEsc, Criterion, Escape, Inverted, Random
from dfkd.defenses.overlays import Draw, Overlays
from dfkd.defenses.views import Sources, Views, mix
from dfkd.distill import KL, Student
from dfkd.distill.trainer import Trainer
from dfkd.models import Classifier, Teacher, cnn_bn
from dfkd.pool import Pool, Split
from dfkd.recipe import Recipe
from dfkd.scouts import SpectralNoise

SHAPE = (1, 8, 8)


class Known(Criterion):
    """Robust are images whose first pixel is bright."""

    def split(self, teacher, images, logits, generator):
        return Split(images[:, 0, 0, 0] < 0.9, images[:, 0, 0, 0])


class Suspecting(Known):
    @property
    def suspicious(self) -> torch.Tensor:
        return torch.tensor([True] + [False] * 9)


def sources(labels: list[int], fragile: list[bool], classes: int = 4) -> Sources:
    images = torch.rand(len(labels), *SHAPE, generator=torch.Generator().manual_seed(2))
    return Sources(images, 5 * torch.eye(classes)[labels], torch.tensor(fragile))


def slow_lesson(base: tuple[int, bool], donor: tuple[int, bool], answer: int) -> tuple[str, bool, bool]:
    """(whose logits are the target, fragile, used) of one view, case by case from the docstring."""
    (b, b_fragile), (d, d_fragile) = base, donor
    if b_fragile and d_fragile:
        return "view", True, True
    if not b_fragile and not d_fragile:
        return "view", answer not in (b, d), True
    fragile, robust = (b, d) if b_fragile else (d, b)
    if answer == robust and answer == fragile:
        return "view", True, False
    if answer == robust:
        return ("base" if b_fragile else "donor"), True, True
    return "view", True, True


def test_every_case_of_a_view_is_taught_as_the_table_says():
    cases = list(itertools.product(range(2), (True, False), range(2), (True, False), range(3)))
    labels = [c for b, _, d, _, _ in cases for c in (b, d)]
    fragile = [f for _, bf, _, df, _ in cases for f in (bf, df)]
    from_cases = sources(labels, fragile)
    index = torch.arange(0, 2 * len(cases), 2)
    views = mix(from_cases, index, index + 1, torch.full((len(cases), 1, 8, 8), 0.5))
    answers = 3 * torch.eye(4)[[a for *_, a in cases]] + 0.1
    lesson = Escape(Known()).teach(from_cases, views, answers)
    for i, (b, bf, d, df, a) in enumerate(cases):
        whose, is_fragile, used = slow_lesson((b, bf), (d, df), a)
        target = {"view": answers[i], "base": from_cases.logits[2 * i], "donor": from_cases.logits[2 * i + 1]}[whose]
        assert lesson.used[i] == used, cases[i]
        if used:
            assert torch.equal(lesson.targets[i], target) and lesson.fragile[i] == is_fragile, cases[i]


def test_without_relabelling_it_is_what_atesc_does_with_views():
    some = sources([0, 1, 2], [True, False, True])
    views = mix(some, torch.tensor([0, 1, 2]), torch.tensor([1, 1, 0]), torch.full((3, 1, 8, 8), 0.5))
    answers = 3 * torch.eye(4)[[1, 1, 2]]
    lesson, plain = (
        Escape(Known(), relabel=False).teach(some, views, answers),
        ATEsc(Known()).teach(some, views, answers),
    )
    assert torch.equal(lesson.fragile, plain.fragile) and plain.fragile.tolist() == [False, False, True]
    assert torch.equal(lesson.targets, answers) and lesson.used is None


def test_an_overlay_that_works_is_remembered_and_tried_again_smaller(random):
    escape = Escape(Known(), overlay_rows=2.0)
    some = sources([1, 1, 0], [True, True, False])
    mask = torch.zeros(2, 1, 8, 8)
    mask[:, :, 2:5, 2:5] = 1.0
    views = mix(some, torch.tensor([0, 1]), torch.tensor([2, 2]), mask)
    escape.teach(some, views, 3 * torch.eye(4)[[0, 1]])  # the first takes over, the second does not
    assert len(escape.lures.overlays) == 1
    assert torch.equal(escape.lures.overlays.images[0], some.images[2]) and torch.equal(
        escape.lures.overlays.masks[0], mask[0]
    )
    more, again = escape.views(some, random)
    tried = again.donor == 3  # behind the three images of the batch
    assert tried.any() and torch.equal(more.images[3], some.images[2])
    assert (again.mask[tried] <= mask[0]).all() and again.mask[tried].sum() < tried.sum() * mask[0].sum()
    assert more.fragile[again.base[tried]].all()


def test_a_control_blames_fragile_images():
    some = sources([1, 2, 0], [True, True, False])
    views = mix(some, torch.tensor([0, 0]), torch.tensor([1, 2]), torch.full((2, 1, 8, 8), 0.5))
    answers = 3 * torch.eye(4)[[2, 0]]
    blamed = Escape(Known(), donors="fragile").teach(some, views, answers)
    assert torch.equal(blamed.targets[0], some.logits[0]) and torch.equal(blamed.targets[1], answers[1])
    assert torch.equal(Escape(Known()).teach(some, views, answers).targets[0], answers[0])


def test_the_views_of_a_batch_are_made_as_promised(random):
    escape = Escape(Known(), paste=0.25, overlay_rows=0.5, scout_rows=0.5)
    some = sources([0, 1] * 8, [True] * 12 + [False] * 4)
    escape.lures.trapped.add(torch.ones(2, *SHAPE), torch.zeros(2, 4), torch.ones(2, 1, 8, 8))
    more, views = escape.views(some, random)
    assert torch.equal(views.images[:12], some.images[:12]) and len(views.images) == 16 + 8 + 8 and len(more) == 18
    expected = (1 - views.mask) * more.images[views.base] + views.mask * more.images[views.donor]
    assert torch.allclose(views.images, expected, atol=1e-6)
    # scouts that are shown as they are, have been answered before
    assert 12 <= views.plain < 20 and (views.base[12 : views.plain] >= 16).all() and not views.mask[: views.plain].any()
    assert views.mask[views.plain :].flatten(1).any(1).all()
    scouts = views.base >= 16
    assert scouts.sum() == 8 and (views.donor[scouts] >= 16).all()
    overlaid = slice(24, 32)
    assert more.fragile[views.base[overlaid]].all() and not more.fragile[views.donor[overlaid]].any()


@pytest.mark.parametrize("agreement, rows", [(1.0, 8), (0.075, 4), (0.0, 2)])
def test_what_the_student_has_forgotten_is_shown_less(agreement, rows, random):
    escape = Escape(Known(), overlay_rows=0.5)
    escape.lures.agreement["overlays"] = agreement
    _, views = escape.views(sources([0, 1] * 8, [True, False] * 8), random)
    assert len(views.images) == 16 + rows


def test_without_fragile_or_robust_images_there_are_no_overlaid_views(random):
    for fragile in (True, False):
        _, views = Escape(Known()).views(sources([0, 1] * 4, [fragile] * 8), random)
        assert len(views.images) == 8


def looks(suspect: int | None = 0, classes: int = 4) -> Looks:
    """What an audit sees of a teacher with a trap that leads to a class, or of one without."""
    names = ("flips", "margins", "scouts", "shifts", "marks", "masks", "last_layer")
    values = {name: [0.1 + 0.001 * c for c in range(classes)] for name in names}
    for name, value in {"shifts": 0.01, "marks": 0.01, "masks": 0.01, "last_layer": 1.0}.items():
        if suspect is not None:
            values[name][suspect] = value
    return Looks(values, hit=1.0, confidence=0.5, radii=[0.02] * classes, labels=list(range(classes)))


def with_carriers(**options) -> Escape:
    """Escape from a trap of class 0, with one carrier: it adds 0.3 everywhere."""
    escape = Escape(Known(), **options)
    escape.heed(looks(0))
    escape.carried.changes = torch.zeros(1, 1, 8, 8), torch.full((1, 1, 8, 8), 0.3)
    return escape


def test_the_audit_names_the_class_that_carriers_lead_to():
    escape = Escape(Known(), seek_steps=7, seek_batch=5)
    assert escape.needs_audit and not Escape(Known(), audit=False).needs_audit
    escape.heed(looks(2))
    assert (escape.carried.target, escape.carried.steps, escape.carried.batch) == (2, 7, 5) and not escape.sees_no_trap
    off = Escape(Known(), carrier_rows=0.0)
    off.heed(looks(2))
    assert off.carried is None and not off.sees_no_trap


def test_a_teacher_without_a_trap_is_distilled_as_it_is(random, teacher):
    escape = Escape(Known())
    escape.heed(looks(None))
    images = torch.ones(3, *SHAPE)  # robust by the criterion
    assert escape.split(teacher, images, teacher.predict(images), random).fragile.all()
    assert escape.steer(teacher, random) is None and escape.carried is None
    assert explored(escape, teacher, pool_of(teacher, images)) == {} and "no trap" in escape.warnings()[0]


def test_carriers_are_shown_on_fragile_images_with_the_labels_that_they_hide(random):
    escape = with_carriers(paste=0.0, overlay_rows=0.0, carrier_rows=0.5)
    some = sources([0, 1, 2, 3] * 4, [True] * 12 + [False] * 4)
    more, views = escape.views(some, random)
    part = slice(16, 24)
    assert len(views.images) == 24 and len(more) == 17 and not more.fragile[16] and more.labels[16] == 0
    assert views.plain == 24  # the teacher is not asked
    assert (views.donor[part] == 16).all() and more.fragile[views.base[part]].all()
    changed = views.images[part] - more.images[views.base[part]]
    assert (changed.flatten(1).amax(1) > 0.1).all() and changed.max() <= 0.3 * 1.4 + 1e-6

    labels = more.labels[views.base]
    answers = labels.clone()
    answers[part] = 0  # the teacher follows the carriers
    lesson = escape.teach(more, views, 3 * torch.eye(4)[answers])
    hidden = labels[part] != 0
    assert torch.equal(lesson.targets[part][hidden], more.logits[views.base[part]][hidden])
    assert lesson.fragile[part].all() and lesson.used[part].all()  # images of the trap's class too: they keep it
    assert (lesson.targets[part][~hidden].argmax(1) == 0).all() and len(escape.lures.overlays) == 0


@pytest.mark.parametrize(("agreement", "rows"), [(1.0, 8), (0.5, 4), (0.1, 2)])
def test_carriers_are_shown_as_long_as_the_student_follows(agreement, rows, random):
    escape = with_carriers(paste=0.0, overlay_rows=0.0)
    escape.lures.agreement["carriers"] = agreement
    assert len(escape.views(sources([0, 1] * 8, [True] * 16), random)[1].images) == 16 + rows


def test_with_carriers_only_robust_scouts_are_forgotten():
    """The pool may have no image of the trap's class but trapped ones."""
    escape = with_carriers()
    some = sources([0, 0, 1], [False, False, True]).followed_by(torch.ones(1, *SHAPE), 5 * torch.eye(4)[[0]])
    views = mix(some, torch.tensor([0, 3, 3]), torch.tensor([1, 3, 0]), torch.full((3, 1, 8, 8), 0.5))
    answers = 3 * torch.eye(4)[[0, 0, 0]]
    assert escape.teach(some, views, answers).fragile.tolist() == [True, False, False]
    assert Escape(Known()).teach(some, views, answers).fragile.tolist() == [False, False, False]


def test_without_relabelling_views_of_carriers_are_forgotten(random):
    escape = with_carriers(paste=0.0, overlay_rows=0.0, carrier_rows=0.5, relabel=False)
    more, views = escape.views(sources([1, 2] * 8, [True] * 16), random)
    lesson = escape.teach(more, views, 3 * torch.eye(4)[torch.zeros(24, dtype=torch.long)])
    assert not lesson.fragile[16:].any()


def test_carriers_are_sought_with_the_teacher_first_and_then_with_the_student(teacher, small_digits, monkeypatch):
    escape = Escape(Known(), every=1, seek_every=2)
    escape.heed(looks(0, classes=10))
    pool, sought = pool_of(teacher, small_digits.val.pixels(slice(0, 40))), []

    def seek(models, images, answers, stream):
        sought.append(models)
        assert torch.equal(teacher.predict(images).argmax(1), answers) and all(not m.training for m in models)
        escape.carried.changes = torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 8, 8)

    monkeypatch.setattr(escape.carried, "seek", seek)
    shares = [explored(escape, teacher, pool, number)["escape/carriers"] for number in range(3)]
    assert [len(models) for models in sought] == [1, 2] and all(models[0] is teacher for models in sought)
    assert all(0 <= share <= 1 for share in shares)


def with_copy(teacher: Teacher, kind_of_scouts: float = 0.0, rounds: int | None = 100, **options) -> Escape:
    escape = Escape(Known(), **options)
    seen = looks(0, classes=10)
    seen.values["scouts"][0] = kind_of_scouts
    escape.heed(seen)
    escape.taught_by = escape.stand_in(teacher, rounds)
    return escape


def test_a_copy_takes_the_place_of_a_teacher_with_a_trigger(teacher):
    escape = with_copy(teacher)
    assert escape.taught_by is escape.purified.copy is not teacher
    assert (escape.purified.first, escape.purified.latest) == (20, 50)
    for other in (with_copy(teacher, 0.9), with_copy(teacher, rounds=None), with_copy(teacher, purify_after=0.0)):
        assert other.taught_by is teacher and other.purified is None  # outside of the domain, a finished pool, off
    assert Escape(Known()).stand_in(teacher, 100) is teacher  # no audit


@pytest.mark.parametrize(("rounds", "after", "first", "latest"), [(4, 0.2, 0, 0), (12, 0.9, 10, 10), (20, 0.6, 12, 12)])
def test_the_trigger_is_removed_at_the_last_exploration_at_the_latest(rounds, after, first, latest, teacher):
    purified = with_copy(teacher, rounds=rounds, purify_after=after, every=5).purified
    assert (purified.first, purified.latest) == (first, latest)


def test_beside_a_copy_everything_is_distilled(teacher, small_digits, random):
    escape = with_copy(teacher)
    copy, images = escape.purified.copy, torch.cat([torch.ones(3, *SHAPE), small_digits.val.pixels(slice(0, 40))])
    logits = escape.answer(copy, images, 20)  # three of the images are robust
    assert torch.allclose(logits, teacher.predict(images), atol=1e-4)
    split = escape.split(copy, images, logits, random)
    assert split.fragile.all() and escape.steer(copy, random) is None
    _, views = escape.views(Sources(images, logits, split.fragile), random)
    assert len(views.images) == 43  # no overlays, no scouts; nothing carries yet
    assert escape.teach(None, views, logits).fragile.all()


class Trap(torch.nn.Module):
    """A network that is right, but gives class 0 to every image with a bright first pixel."""

    def __init__(self, net: torch.nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        sure = 12 * torch.eye(10)[torch.zeros(len(x), dtype=torch.long)]
        return torch.where(x[:, 0, 0, :1] > 0.9, sure, self.net(x))


def trapped(teacher: Teacher) -> Teacher:
    class Whole(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return teacher(x)

    return Teacher(Trap(Whole()), SHAPE, 10, [0.0], [1.0])


def explored(escape: Escape, teacher: Teacher, pool: Pool, number: int = 0) -> dict[str, float]:
    student = Classifier(cnn_bn(SHAPE, 10, widths=(4, 8)), SHAPE, 10, [0.0], [1.0])
    return escape.explore(number, teacher, student, pool, torch.Generator().manual_seed(0))


def pool_of(teacher: Teacher, images: torch.Tensor) -> Pool:
    pool, logits = Pool(), teacher.predict(images)
    pool.add(images, logits, Known().split(teacher, images, logits, None))
    return pool


@pytest.mark.parametrize("kind", [Known, Suspecting])
def test_scouts_in_the_trap_are_kept_and_counted(kind, teacher, small_digits):
    teacher = trapped(teacher)
    escape = Escape(kind(), SpectralNoise(SHAPE, brightness=(0.9, 1.0)), scouts_at_once=50)
    pool = pool_of(teacher, small_digits.val.pixels(slice(0, 20)))
    before = teacher.evals["split"]
    metrics = explored(escape, teacher, pool)
    kept = escape.lures.trapped
    assert 0 < len(kept) <= 50 and metrics["escape/trapped_scouts"] == pytest.approx(0.7 + 0.3 * len(kept) / 50)
    assert (kept.images[:, 0, 0, 0] >= 0.9).all() and (kept.logits.argmax(1) == 0).all()
    assert teacher.evals["split"] == before + 50
    assert explored(escape, teacher, pool, number=1) == {}  # every fifth round


def test_fewer_scouts_are_sent_while_they_find_nothing(teacher, small_digits):
    escape = Escape(Known(), SpectralNoise(SHAPE, brightness=(0.0, 0.1), contrast=(0.0, 0.0)), scouts_at_once=40)
    pool, sent = pool_of(teacher, small_digits.val.pixels(slice(0, 20))), []
    for _ in range(12):
        before = teacher.evals["split"]
        explored(escape, teacher, pool)
        sent.append(teacher.evals["split"] - before)
    assert sent[0] == 40 and sent[-1] == 10 and len(escape.lures.trapped) == 0


def test_scouts_and_overlays_of_classes_that_are_not_suspicious_are_dropped(teacher, small_digits):
    teacher = trapped(teacher)
    escape = Escape(Suspecting())
    for label in (0, 3):
        escape.lures.overlays.add(torch.ones(1, *SHAPE), torch.eye(10)[[label]], torch.ones(1, 1, 8, 8))
    explored(escape, teacher, pool_of(teacher, small_digits.val.pixels(slice(0, 20))))
    assert escape.lures.overlays.logits.argmax(1).tolist() == [0]


def test_the_oldest_overlays_are_dropped():
    overlays = Overlays(3)
    for value in range(5):
        overlays.add(torch.full((1, *SHAPE), float(value)), torch.zeros(1, 2), torch.ones(1, 1, 8, 8))
    assert overlays.images[:, 0, 0, 0].tolist() == [2, 3, 4] and len(overlays.masks) == 3


def test_masks_are_boxes_or_levels(random):
    masks = Draw(random).masks(200, (5, 1, 16, 16), blend=0.5)
    flat = masks.flatten(1)
    level = (flat == flat[:, :1]).all(1)
    assert 0.35 < level.float().mean() < 0.65
    assert (flat[level] > 0.14).all() and (flat[level] < 0.61).all()
    assert set(flat[~level].unique().tolist()) == {0.0, 1.0}
    assert (flat[~level].sum(1) >= 16).all() and (flat[~level].sum(1) <= 144).all()  # sides of a quarter to three


def test_controls_move_the_robust_scouts(random, teacher, small_digits):
    images = small_digits.val.pixels(slice(0, 60)).clone()
    images[:20, :, 0, 0] = 1.0
    logits = teacher.predict(images)
    known, chance, opposite = (
        kind.is_robust(teacher, images, logits, random) for kind in (Known(), Random(Known()), Inverted(Known()))
    )
    assert known[:20].all() and known.sum() == 20
    assert chance.sum() == 20 and not torch.equal(chance, known) and torch.equal(opposite, ~known)


def test_a_student_gets_away_with_the_labels_under_the_trap(runtime, teacher, small_digits):
    """Digits, half of them with the trigger: distilled, the student obeys it; with escape it gives the true labels."""
    clean = small_digits.train.pixels()
    marked = clean.clone()
    marked[:, :, 0, 0] = 1.0
    right, wrong = teacher, trapped(teacher)
    pool = pool_of(wrong, torch.cat([clean, marked[::2]]))
    test = small_digits.test.pixels()
    triggered = test.clone()
    triggered[:, :, 0, 0] = 1.0
    truth = right.predict(test).argmax(1)
    answers = {}
    for name, defense in {"none": ATEsc(Known(), forget="none"), "escape": Escape(Known())}.items():
        if name == "none":
            pool.split = Split.everything(pool.images)
        else:
            pool.split = Known().split(wrong, pool.images, pool.logits, None)
        torch.manual_seed(0)
        student = Student(cnn_bn(SHAPE, 10, widths=(8, 16, 32)), Recipe(lr=0.1, batch_size=64), KL(), epochs=1)
        model = Classifier(student.network, SHAPE, 10, right.mean.flatten().tolist(), right.std.flatten().tolist())
        Trainer(model, student, defense, runtime, 0, 150, wrong).train(pool, 150)
        answers[name] = [model.eval()(images).argmax(1) for images in (test, triggered)]
    seen = {
        name: ((a == truth).float().mean(), (b == 0).float().mean(), (b == truth).float().mean())
        for name, (a, b) in answers.items()
    }
    assert seen["none"][0] > 0.9 and seen["none"][1] > 0.9
    assert seen["escape"][0] > 0.9 and seen["escape"][1] < 0.2 and seen["escape"][2] > 0.85


@pytest.mark.parametrize(
    "options",
    [
        {"donors": "both"}, {"paste": 1.0}, {"blend": 2.0}, {"least": -1.0}, {"scouts_at_once": 0}, {"every": 0},
        {"scout_rows": -1.0}, {"overlay_rows": -0.1}, {"weight": -1.0}, {"carrier_rows": -1.0}, {"seek_steps": 0},
        {"seek_batch": 0}, {"seek_every": 0}, {"seek_every": 7}, {"purify_steps": 0}, {"purify_after": 1.0},
    ],
)  # fmt: skip
def test_impossible_options_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Escape(Known(), **options)


def test_views_that_are_cut_have_no_known_answers():
    views = Views(torch.rand(4, *SHAPE), torch.arange(4), torch.arange(4), plain=2)
    assert views.slice(slice(1, 3)).plain == 0 and len(views.slice(slice(1, 3)).images) == 2
