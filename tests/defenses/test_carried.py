"""What carries images to the class of a trap, for teacher and student: what is remembered, and how it is applied."""

import pytest
import torch
from by_hand import CLASSES, PLACE, TARGET, images_by_hand, teacher_by_hand

from dfkd.audit import Looks
from dfkd.carriers import Filters
from dfkd.defenses.carried import KEPT, Carried, smallest_of_others

SIZES = {"shifts": [0.4, 0.4, 0.3], "marks": [20.0, 22.0, 3.0], "masks": [20.0, 22.0, 3.0]}  # of the teacher by hand


def looks(**sizes: list[float]) -> Looks:
    return Looks(values=SIZES | sizes, hit=1.0, confidence=0.5, radii=[], labels=[])


@pytest.fixture
def carried() -> Carried:
    return Carried(looks(), TARGET, steps=40, batch=30)


def seek(carried: Carried, device: torch.device, *trapped: bool, times: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    images, answers = images_by_hand(device)
    stream = torch.Generator().manual_seed(0)
    for _ in range(times):
        carried.seek([teacher_by_hand(word, device) for word in trapped], images, answers, stream)
    return images, answers


def test_what_is_found_takes_images_of_other_classes_along(carried, device, random):
    images, answers = seek(carried, device, True)
    assert len(carried) >= 2  # a mask and a mark: the trigger is a pixel
    which = torch.arange(len(images), device=device) % len(carried)
    changed = carried.applied(images, torch.ones_like(images[:, :, :1, :1]), which)
    carry = teacher_by_hand(True, device).predict(changed).argmax(1) == TARGET
    assert carry[answers != TARGET].float().mean() > 0.8
    keep, add = carried.changes
    assert (add[:, 0, PLACE[0], PLACE[1]] > 0.4).all()
    assert (keep.flatten(1).sum(1) < 8).all() and ((add != 0).flatten(1).sum(1) <= 64).all()


def test_where_the_student_no_longer_follows_nothing_is_found(carried, device):
    seek(carried, device, True, False)  # the second has the same classes without the trigger
    assert len(carried) == 0


def test_a_carrier_is_smaller_than_those_to_ordinary_classes(device):
    large = Carried(looks(shifts=[2.0, 2.0, 0.1], marks=[64.0] * 3, masks=[64.0] * 3), TARGET, 40, 30)
    seek(large, device, False)  # no trigger: it takes 11 pixels, or a shift of 0.32
    assert len(large) == 0  # an eighth of 64 pixels, and a shift of 0.2, are the most
    small = Carried(looks(marks=[3.0, 3.0, 3.0], masks=[2.0, 2.0, 2.0]), TARGET, 40, 30)
    seek(small, device, True)  # the pixel of the trigger takes a mark of 3.2
    assert all((mask.sum() < 1.5) for mask in small.changes[0]) and len(small) <= 2


def test_the_newest_are_kept(carried, device):
    seek(carried, device, True, times=KEPT // 2 + 1)
    first = carried.changes[1].clone()
    assert len(first) == KEPT
    seek(carried, device, True)
    assert len(carried.changes[1]) == KEPT and torch.equal(carried.changes[1][:-2], first[2:])


def test_changes_and_filters_are_applied_as_the_formula_says(carried, random):
    images = torch.rand(40, 1, 8, 8, generator=random)
    level = 2 * torch.rand(40, 1, 8, 8, generator=random)
    keep, add = torch.rand(1, 1, 8, 8, generator=random), torch.rand(1, 1, 8, 8, generator=random) - 0.5
    filters = Filters(
        torch.tensor([0.3]),
        *(torch.randn(1, *shape, generator=random) for shape in ((8, 1, 5, 5), (8,), (1, 8, 3, 3), (1,))),
    )
    carried.changes, carried.filters = (keep, add), tuple(vars(filters).values())
    which = torch.arange(40) % 2
    changed = carried.applied(images, level, which)
    one = ((1 - (keep * level).clamp(max=1)) * images + add * level).clamp(0, 1)
    other = (images + level * filters.added(images[None])[0]).clamp(0, 1)
    assert torch.allclose(changed, torch.where(which.view(-1, 1, 1, 1) == 0, one, other), atol=1e-5)


def test_the_student_is_shown_more_often_what_it_still_follows(carried, device, random):
    images, answers = images_by_hand(device)
    images = images[answers != TARGET]
    trigger = torch.zeros(2, 1, 8, 8, device=device)
    trigger[0, 0, PLACE[0], PLACE[1]] = 1.0
    carried.changes = torch.zeros_like(trigger[:, :1]), trigger  # the second does nothing
    share = carried.look(teacher_by_hand(True, device).predict, images)
    assert carried.followed.tolist() == [1.0, 0.0] and share == pytest.approx(1.1 / 1.2)
    changed = (carried.views(images.repeat(20, 1, 1, 1), random) != images.repeat(20, 1, 1, 1)).flatten(1).any(1)
    assert changed.float().mean() > 0.6  # in three of ten views the carrier is applied to a part only


def test_views_have_other_strengths_and_places(carried, random):
    carried.changes = torch.zeros(1, 1, 8, 8), torch.full((1, 1, 8, 8), 0.25)
    added = carried.views(torch.full((400, 1, 8, 8), 0.5), random) - 0.5
    largest = added.flatten(1).amax(1)
    assert 0.35 < (largest == 0.25).float().mean() < 0.65  # its own strength
    assert largest.min() > 0.6 * 0.25 - 1e-6 and largest.max() < 1.4 * 0.25 + 1e-6
    whole = (added.flatten(1) > 0).all(1).float().mean()
    assert 0.6 < whole < 0.8


def test_the_bound_is_of_the_other_classes():
    assert smallest_of_others([3.0, 1.0, 2.0], 1) == 2.0 and smallest_of_others([3.0, 1.0, 2.0], 2) == 1.0
    assert CLASSES == 3
