"""Teachers by hand, with a trigger and without, and searches on images for them."""

import pytest
import torch
from by_hand import CLASSES, images_by_hand, teacher_by_hand

from dfkd.carriers import Search


@pytest.fixture(scope="session")
def by_hand(device):
    """Make a teacher, trapped or not."""
    return lambda trapped: teacher_by_hand(trapped, device)


@pytest.fixture
def search(by_hand, device):
    """Make a search for the teachers by hand: trapped or not, one for each word."""

    def make(*trapped: bool, batch: int = 30, wanted: tuple[int, ...] = tuple(range(CLASSES)), **options) -> Search:
        images, answers = images_by_hand(device)
        models = [by_hand(word) for word in trapped]
        stream = torch.Generator().manual_seed(0)
        return Search(models, images, answers, torch.tensor(wanted, device=device), batch, stream, **options)

    return make
