"""How much an audit spends."""

import pytest
from by_hand import CLASSES

from dfkd.audit import Effort, look
from dfkd.audit.effort import LEAST


def test_the_images_that_are_shown_are_counted_in_advance(by_hand, runtime):
    teacher, effort = by_hand(False), Effort(images=4, steps=10, carrier_steps=5, batch=6, scouts=12)
    with teacher.counted_as("audit"):
        look(teacher, runtime, 0, effort)
    assert effort.passes(CLASSES) == pytest.approx(teacher.evals["audit"], rel=0.15)


def test_the_cost_of_a_network_is_counted(by_hand):
    teacher, small, large = by_hand(False), Effort(), Effort(images=10**12)
    assert small.for_teacher(teacher) == small
    assert large.for_teacher(teacher).images == LEAST * large.images


def test_a_large_network_gets_less_and_a_small_one_everything():
    effort = Effort()
    assert effort.within(1e12, 10, 1e6) == effort
    cost = 2 * 1e9 * effort.passes(10)
    less = effort.within(cost / 2, 10, 1e9)
    assert less.attack_steps == effort.attack_steps
    assert 2 * 1e9 * less.passes(10) == pytest.approx(cost / 2, rel=0.15)
    least = effort.within(1.0, 10, 1e9)
    assert least.images == LEAST * effort.images and least.steps == LEAST * effort.steps


@pytest.mark.parametrize("wrong", [{"images": 0}, {"steps": 1.5}])
def test_an_effort_out_of_range_is_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must"):
        Effort(**wrong)
