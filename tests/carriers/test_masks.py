"""The smallest mask and pattern that carry images of all other classes to one class."""

import pytest
import torch
from by_hand import CLASSES, PLACE, SHAPE, TARGET

from dfkd.carriers import smallest_masks


def test_the_smallest_mask_lies_where_the_trigger_is(search):
    found = smallest_masks(search(True, batch=20), 120)
    assert found.size[TARGET] < 0.3 * found.size[:TARGET].min()
    brightest = (found.mask[TARGET, 0] * found.pattern[TARGET, 0]).flatten().argmax().item()
    assert divmod(brightest, SHAPE[2]) == PLACE
    assert found.found.all()


def test_a_mask_that_was_not_found_has_the_size_of_the_image(search):
    found = smallest_masks(search(False, batch=20), 1)
    assert found.size.tolist() == pytest.approx([64.0] * CLASSES)
    assert torch.equal(found.mask, torch.ones_like(found.mask)) and not found.found.any()


def test_no_mask_is_larger_than_allowed(search):
    size = smallest_masks(search(True), 120).size
    bound = smallest_masks(search(True), 120, most=0.5 * size[:TARGET].min().item())
    assert bound.found.tolist() == [False] * TARGET + [True]
