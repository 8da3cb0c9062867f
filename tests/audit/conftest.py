"""Teachers by hand, with a trap and without, and what is seen of them."""

import pytest
import torch
from by_hand import teacher_by_hand

from dfkd.audit import Effort, Looks, look


@pytest.fixture(scope="session")
def by_hand(device):
    """Make a teacher, trapped or not."""
    return lambda trapped: teacher_by_hand(trapped, device)


@pytest.fixture
def stream(device):
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def looks_at(by_hand, runtime):
    """Look at a teacher by hand, with little effort."""
    effort = Effort(images=4, steps=20, carrier_steps=10, attack_steps=3, batch=8, scouts=12)
    made: dict[bool, Looks] = {trapped: look(by_hand(trapped), runtime, 0, effort) for trapped in (False, True)}
    return made.__getitem__
