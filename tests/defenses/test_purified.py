"""A copy loses its trigger when the pool has all classes, and a student sees it with images of the trap's class."""

import pytest
import torch

from dfkd.audit import Looks
from dfkd.defenses.carried import Carried
from dfkd.defenses.lures import Shown
from dfkd.defenses.purified import OWN_ROWS, PAINTED, Purified
from dfkd.defenses.views import Sources
from dfkd.models import Classifier, Teacher, cnn_bn
from dfkd.pool import Pool, Split

SHAPE, TARGET = (1, 8, 8), 0


def student() -> Classifier:
    return Classifier(cnn_bn(SHAPE, 10, widths=(4, 8)), SHAPE, 10, [0.0], [1.0])


def purified(teacher: Teacher, monkeypatch, **options) -> Purified:
    """A copy whose removal of the trigger makes it say 3 more often, and no more."""
    large = {"shifts": [1.0] * 10, "marks": [64.0] * 10, "masks": [64.0] * 10}
    carried = Carried(Looks(values=large, hit=1.0, confidence=0.5, radii=[], labels=[]), TARGET, 7, 5)
    given = {"first": 20, "latest": 50, "steps": 9, "paint_steps": 2, "shown": Shown(0.5, 0.5, 0.0, 0.0, 0.5, 0.25)}
    made = Purified(teacher, carried, **given | options)

    def purify(carried, images, logits, steps, generator):
        assert carried is made.carried and steps == 9
        with torch.no_grad():
            made.copy.net.head.bias[3] += 100
        made.copy.changed()

    monkeypatch.setattr(made.copy, "purify", purify)
    return made


def pool_with(teacher: Teacher, images: torch.Tensor, labels: list[int]) -> Pool:
    pool = Pool()
    pool.add(images[: len(labels)], 5 * torch.eye(10)[labels], Split.everything(images[: len(labels)]))
    return pool


@pytest.fixture
def images(small_digits) -> torch.Tensor:
    return small_digits.val.pixels(slice(0, 60))


@pytest.mark.parametrize(
    ("classes", "number", "done"),
    [
        (range(10), 19, False),  # too early
        (range(10), 20, True),
        (range(1, 10), 20, True),  # the class of the trap is not needed
        (range(9), 49, False),  # another class is missing
        (range(9), 50, True),  # but it is late
    ],
)
def test_the_trigger_is_removed_when_the_pool_has_all_other_classes(
    classes, number, done, teacher, images, random, monkeypatch
):
    way, pool = purified(teacher, monkeypatch), pool_with(teacher, images, [*classes] * 5)
    metrics = way.explore(number, student(), pool, random)
    assert way.done == done and metrics["escape/purified"] == done
    assert (pool.logits.argmax(1) == 3).all() == done  # the answers of the copy
    assert (way.own is not None) == done


def test_the_trigger_is_removed_once(teacher, images, random, monkeypatch):
    way, pool = purified(teacher, monkeypatch), pool_with(teacher, images, [*range(10)] * 5)
    way.explore(20, student(), pool, random)
    bias = way.copy.net.head.bias[3].item()
    way.explore(25, student(), pool, random)
    assert way.copy.net.head.bias[3].item() == bias and way.own.shape == (PAINTED, *SHAPE)
    assert torch.allclose(way.own_logits, way.copy.predict(way.own))


def test_without_steps_nothing_is_painted(teacher, images, random, monkeypatch):
    way = purified(teacher, monkeypatch, paint_steps=0)
    way.explore(50, student(), pool_with(teacher, images, [*range(10)] * 5), random)
    assert way.done and way.own is None


@pytest.mark.parametrize(("agreement", "rows"), [(1.0, 8), (0.5, 4), (0.1, 2)])
def test_a_student_sees_sources_mixed_ones_and_carried_ones(agreement, rows, teacher, images, random, monkeypatch):
    way = purified(teacher, monkeypatch)
    way.own, way.own_logits = torch.rand(5, *SHAPE), 5 * torch.eye(10)[[TARGET] * 5]
    way.carried.changes, way.agreement = (torch.zeros(1, 1, 8, 8), torch.full((1, 1, 8, 8), 0.3)), agreement
    logits = 5 * torch.eye(10)[[0, 1, 2, 3] * 4]
    sources, views = way.views(Sources(images[:16], logits, torch.ones(16, dtype=torch.bool)), random)
    own = round(OWN_ROWS * 16)
    assert len(sources) == 16 + own and (sources.labels[16:] == TARGET).all()
    mixed = (16 + own) // 2
    plain = 16 + own - mixed
    assert len(views.images) == 16 + own + rows and views.plain == plain + rows
    assert torch.equal(views.images[:plain], sources.images[views.base[:plain]])
    carried = slice(plain, plain + rows)
    assert (sources.labels[views.base[carried]] != TARGET).all()
    changed = views.images[carried] - sources.images[views.base[carried]]
    assert (changed.flatten(1).amax(1) > 0.1).all()
    blended = views.mask[plain + rows :]
    whole = (1 - blended) * sources.images[views.base[plain + rows :]]
    whole += blended * sources.images[views.donor[plain + rows :]]
    assert torch.allclose(views.images[plain + rows :], whole, atol=1e-6) and blended.flatten(1).any(1).all()
    assert way.teach(sources, views, torch.zeros(9, 10)).fragile.all()
