"""Changes that carry images of all other classes to one class."""

import pytest
import torch
from by_hand import CLASSES, PLACE, SHAPE, TARGET

from dfkd.audit.carriers import of_others, pull, smallest_marks, smallest_shifts
from dfkd.audit.masks import smallest_masks


def test_a_change_is_judged_by_the_images_of_other_classes_only(by_hand, synthetics):
    images, answers = synthetics.images, synthetics.answers
    _, success = pull(by_hand(False), images.expand(CLASSES, -1, -1, -1, -1), answers)
    assert success.tolist() == [0, 0, 0]  # an image that keeps its class is never carried to another
    others = of_others(answers, CLASSES)
    assert others.sum(1).tolist() == [20, 20, 20] and not others[0][answers == 0].any()


def test_few_pixels_find_a_local_trigger(by_hand, synthetics, stream):
    found, usual = (smallest_marks(by_hand(trapped), synthetics, 40, 10, stream) for trapped in (True, False))
    assert found.size[TARGET] < 0.3 * found.size[:TARGET].min()
    assert found.change[TARGET, 0, PLACE[0], PLACE[1]] > 0.4
    assert (found.change[TARGET] != 0).sum() <= 3
    assert usual.size.min() > 3 * found.size[TARGET]


def test_the_weakest_pattern_of_a_linear_teacher_is_known(by_hand, synthetics, stream):
    teacher, images, answers = by_hand(False), synthetics.images, synthetics.answers
    found = smallest_shifts(teacher, synthetics, 60, 30, stream)  # every step sees all images
    logits = teacher.predict(images) / 8  # brightness of the thirds: one grows by the shift, the others shrink by it
    for target in range(CLASSES):
        gaps = (logits.amax(1) - logits[:, target])[answers != target]
        assert found.size[target].item() == pytest.approx(gaps.max().item() / 2, rel=0.15)
    assert (found.change.abs().flatten(1).amax(1) <= found.size + 1e-6).all()


@pytest.mark.parametrize("seek", [smallest_shifts, smallest_marks])
def test_the_smallest_change_that_was_found_does_what_is_asked(by_hand, synthetics, stream, seek):
    teacher, found = by_hand(True), seek(by_hand(True), synthetics, 40, 30, stream)  # every step sees all images
    changed = (synthetics.images[None] + found.change[:, None]).clamp(0, 1)
    assert pull(teacher, changed, synthetics.answers)[1][TARGET] >= 0.95


@pytest.mark.parametrize(("seek", "most"), [(smallest_shifts, 1.0), (smallest_marks, 64.0)])
def test_a_change_that_was_not_found_has_the_largest_size(by_hand, synthetics, stream, seek, most):
    found = seek(by_hand(False), synthetics, 1, 20, stream)
    assert found.size.tolist() == [most] * CLASSES and not found.change.any()


def test_the_smallest_mask_lies_where_the_trigger_is(by_hand, synthetics, stream):
    found = smallest_masks(by_hand(True), synthetics, 120, 20, stream)
    assert found.size[TARGET] < 0.3 * found.size[:TARGET].min()
    brightest = (found.mask[TARGET, 0] * found.pattern[TARGET, 0]).flatten().argmax().item()
    assert divmod(brightest, SHAPE[2]) == PLACE


def test_a_mask_that_was_not_found_has_the_size_of_the_image(by_hand, synthetics, stream):
    found = smallest_masks(by_hand(False), synthetics, 1, 20, stream)
    assert found.size.tolist() == pytest.approx([64.0] * CLASSES)
    assert torch.equal(found.mask, torch.ones(CLASSES, 1, 8, 8))
