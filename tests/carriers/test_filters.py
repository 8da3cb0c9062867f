"""The weakest filters that carry images of all other classes to one class."""

import pytest
import torch
import torch.nn.functional as F
from by_hand import CLASSES, TARGET

from dfkd.carriers import Filters, smallest_shifts, weakest_filters


@pytest.fixture
def filters(random):
    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random)

    return Filters(torch.tensor([0.1, 0.3]), draw(2, 8, 3, 5, 5), draw(2, 8), draw(2, 3, 8, 3, 3), draw(2, 3))


def slow(filters: Filters, row: int, image: torch.Tensor) -> torch.Tensor:
    """What filter `row` adds to an image (C, H, W), by convolutions of its own."""
    h = F.conv2d(F.pad(image[None] - 0.5, [2] * 4, mode="replicate"), filters.first[row], filters.first_bias[row])
    h = F.conv2d(F.pad(h.relu(), [1] * 4, mode="replicate"), filters.second[row], filters.second_bias[row])
    return filters.size[row] * h.tanh()[0]


def test_every_filter_is_applied_to_its_own_images_or_to_all(filters, random):
    own = torch.rand(2, 4, 3, 6, 7, generator=random)
    for images, of in ((own, lambda row, k: own[row, k]), (own[0], lambda _, k: own[0, k])):
        added = filters.added(images)
        assert added.shape == own.shape
        for row in range(2):
            for k in range(4):
                assert torch.allclose(added[row, k], slow(filters, row, of(row, k)), atol=1e-5)
    assert added.abs().flatten(1).amax(1)[0] <= 0.1 + 1e-6


def test_rows_can_be_chosen(filters, random):
    images = torch.rand(3, 1, 3, 6, 7, generator=random)
    some = filters[torch.tensor([1, 0, 1])].added(images)
    assert torch.allclose(some[2, 0], slow(filters, 1, images[2, 0]), atol=1e-5)


def test_a_filter_that_was_found_does_what_is_asked_and_others_are_none(search):
    one = search(True)
    found = weakest_filters(one, 150, 1.0)
    assert found.found.all()
    changed = (one.images[None] + found.added(one.images)).clamp(0, 1)
    assert (one.pull(changed, one.answers)[1] >= 0.95).all()
    few = weakest_filters(search(True), 1, 0.01)
    assert not few.found.any() and few.size.tolist() == pytest.approx([0.01] * CLASSES)


def test_a_filter_may_change_less_than_a_pattern_that_is_the_same_for_all(search):
    most = 0.7 * smallest_shifts(search(False), 60).size[:TARGET]
    found = weakest_filters(search(False, wanted=(0,)), 200, 1.0)
    assert found.size.item() < 1.5 * most[0].item() / 0.7  # as weak as a pattern, up to the coarse search
    assert weakest_filters(search(False, wanted=(0,)), 100, 0.3 * most[0].item()).found.tolist() == [False]
