"""Changes that carry images of all other classes to one class."""

import pytest
import torch
from by_hand import CLASSES, PLACE, SHAPE, TARGET

from dfkd.audit.carriers import carried, of_others, universal_marks, universal_shifts
from dfkd.audit.masks import smallest_masks


def test_a_change_is_measured_on_the_images_of_other_classes_only(by_hand, synthetics):
    success, gain = carried(by_hand(False), synthetics, lambda images: images.expand(CLASSES, -1, -1, -1, -1))
    assert success.tolist() == [0, 0, 0]  # an image that keeps its class is never carried to another
    assert (gain < 0).all()
    others = of_others(synthetics.answers, CLASSES)
    assert others.sum(1).tolist() == [20, 20, 20] and not others[0][synthetics.answers == 0].any()


def test_few_pixels_find_a_local_trigger_and_nothing_in_an_ordinary_teacher(by_hand, synthetics, stream):
    count = 2 / 64
    found = universal_marks(by_hand(True), synthetics, count, 20, 10, stream)
    assert found.success[TARGET] == 1 and found.success[:TARGET].max() == 0
    assert found.change[TARGET, 0, PLACE[0], PLACE[1]] > 0.4
    assert (found.change[TARGET] != 0).sum() <= 2
    usual = universal_marks(by_hand(False), synthetics, count, 20, 10, stream)
    assert usual.success.max() == 0


def test_a_shift_stays_within_its_radius(by_hand, synthetics, stream):
    found = universal_shifts(by_hand(True), synthetics, 0.1, 5, 10, stream)
    assert found.change.shape == (CLASSES, *SHAPE)
    assert found.change.abs().max() <= 0.1 + 1e-6
    start = carried(by_hand(True), synthetics, lambda images: images.expand(CLASSES, -1, -1, -1, -1))[1]
    assert (found.gain > start).all()


def test_the_smallest_mask_lies_where_the_trigger_is(by_hand, synthetics, stream):
    found = smallest_masks(by_hand(True), synthetics, 120, 20, stream)
    assert found.size[TARGET] < 0.3 * found.size[:TARGET].min()
    brightest = (found.mask[TARGET, 0] * found.pattern[TARGET, 0]).flatten().argmax().item()
    assert divmod(brightest, SHAPE[2]) == PLACE


def test_a_mask_that_was_not_found_has_the_size_of_the_image(by_hand, synthetics, stream):
    found = smallest_masks(by_hand(False), synthetics, 1, 20, stream)
    assert found.size.tolist() == pytest.approx([64.0] * CLASSES)
    assert torch.equal(found.mask, torch.ones(CLASSES, 1, 8, 8))
