"""Teachers by hand, with a trap and without, and what is seen of them."""

import pytest
import torch
from by_hand import CLASSES, PLACE, SHAPE, ByHand

from dfkd.audit import Effort, Looks, look
from dfkd.audit.synthetic import Synthetics
from dfkd.models import Teacher


@pytest.fixture(scope="session")
def by_hand(device):
    """Make a teacher, trapped or not."""
    return lambda trapped: Teacher(ByHand(trapped), SHAPE, CLASSES, [0.0], [1.0]).to(device)


@pytest.fixture(scope="session")
def synthetics(by_hand, device):
    """Images with one bright third; the pixel of the trap is dark in all of them."""
    images = 0.2 * torch.rand(30, *SHAPE, generator=torch.Generator().manual_seed(0)).to(device)
    labels = (torch.arange(30) % CLASSES).to(device)
    for image, label in zip(images, labels, strict=True):
        image.tensor_split(3, dim=2)[label].add_(0.6)
    images[:, 0, PLACE[0], PLACE[1]] = 0.1
    answers = by_hand(False).predict(images).argmax(1)
    assert torch.equal(answers, labels)
    return Synthetics(images, labels, answers)


@pytest.fixture
def stream(device):
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def looks_at(by_hand, runtime):
    """Look at a teacher by hand, with little effort."""
    effort = Effort(images=4, steps=20, carrier_steps=10, attack_steps=3, batch=8, scouts=12)
    made: dict[bool, Looks] = {trapped: look(by_hand(trapped), runtime, 0, effort) for trapped in (False, True)}
    return made.__getitem__
