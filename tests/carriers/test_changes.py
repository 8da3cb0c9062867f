"""Changes that carry images of all other classes to one class."""

import pytest
from by_hand import CLASSES, PLACE, TARGET

from dfkd.carriers import smallest_marks, smallest_shifts


def test_few_pixels_find_a_local_trigger(search):
    found, usual = (smallest_marks(search(trapped, batch=10), 40) for trapped in (True, False))
    assert found.size[TARGET] < 0.3 * found.size[:TARGET].min()
    assert found.change[TARGET, 0, PLACE[0], PLACE[1]] > 0.4
    assert (found.change[TARGET] != 0).sum() <= 3
    assert usual.size.min() > 3 * found.size[TARGET]


def test_the_weakest_pattern_of_a_linear_teacher_is_known(search):
    one = search(False)  # every step sees all images
    found = smallest_shifts(one, 60)
    logits = (
        one.models[0].predict(one.images) / 8
    )  # brightness of the thirds: one grows by the shift, the others shrink
    for target in range(CLASSES):
        gaps = (logits.amax(1) - logits[:, target])[one.answers != target]
        assert found.size[target].item() == pytest.approx(gaps.max().item() / 2, rel=0.15)
    assert (found.change.abs().flatten(1).amax(1) <= found.size + 1e-6).all()


@pytest.mark.parametrize("seek", [smallest_shifts, smallest_marks])
def test_the_smallest_change_that_was_found_does_what_is_asked(search, seek):
    one = search(True)
    found = seek(one, 40)
    changed = (one.images[None] + found.change[:, None]).clamp(0, 1)
    assert one.pull(changed, one.answers)[1][TARGET] >= 0.95 and found.found[TARGET]


@pytest.mark.parametrize(("seek", "most"), [(smallest_shifts, 1.0), (smallest_marks, 64.0)])
def test_a_change_that_was_not_found_has_the_largest_size(search, seek, most):
    found = seek(search(False), 1)
    assert found.size.tolist() == [most] * CLASSES and not found.change.any() and not found.found.any()


@pytest.mark.parametrize("seek", [smallest_shifts, smallest_marks])
def test_one_class_alone_is_carried_as_it_is_among_others(search, seek):
    alone, among = seek(search(True, wanted=(TARGET,)), 40), seek(search(True), 40)  # every step sees all images
    assert alone.size.shape == (1,) and alone.change.shape == (1, *among.change.shape[1:])
    assert alone.size[0].item() == pytest.approx(among.size[TARGET].item(), rel=1e-4)


@pytest.mark.parametrize("seek", [smallest_shifts, smallest_marks])
def test_no_change_is_larger_than_allowed(search, seek):
    free = seek(search(False), 60)
    least = free.size.min().item()
    bound = seek(search(False), 60, most=0.5 * least)
    assert not bound.found.any() and bound.size.tolist() == pytest.approx([0.5 * least] * CLASSES)
    assert seek(search(False), 60, most=1.5 * free.size.max().item()).found.all()


@pytest.mark.parametrize("seek", [smallest_shifts, smallest_marks])
def test_a_carrier_for_two_models_carries_both(search, seek):
    both = search(True, False)  # the second has no trigger, so its own features have to be changed
    found = seek(both, 60)
    changed = (both.images[None] + found.change[:, None]).clamp(0, 1)
    assert found.found.all() and (both.pull(changed, both.answers)[1] >= 0.95).all()
    if seek is smallest_marks:  # with the trigger alone it takes a third of the pixels
        assert found.size[TARGET] > 2 * seek(search(True), 60).size[TARGET]


@pytest.mark.parametrize("seek", [smallest_shifts, smallest_marks])
def test_half_of_the_images_are_carried_by_less(search, seek):
    half, most = (seek(search(False, share=share), 60).size for share in (0.5, 0.95))
    assert (half < most).all()
