"""The seconds of a stage, by phase."""

import time

import pytest
import torch

from dfkd.clock import Clock


def test_a_phase_inside_another_pauses_it():
    clock, began = Clock(torch.device("cpu")), time.monotonic()
    with clock("outer"):
        time.sleep(0.02)
        with clock("inner"):
            time.sleep(0.05)
        time.sleep(0.02)
    whole = time.monotonic() - began
    assert clock.seconds["inner"] >= 0.05
    assert 0.04 <= clock.seconds["outer"] <= whole - 0.05
    assert sum(clock.seconds.values()) == pytest.approx(whole, abs=0.005)


def test_a_phase_that_returns_adds_up_and_time_between_phases_counts_nowhere():
    clock = Clock(torch.device("cpu"))
    for _ in range(2):
        with clock("work"):
            time.sleep(0.02)
        time.sleep(0.1)
    assert 0.04 <= clock.seconds["work"] < 0.1


def test_a_phase_that_fails_is_closed():
    clock = Clock(torch.device("cpu"))
    with pytest.raises(RuntimeError), clock("broken"):
        raise RuntimeError
    with clock("next"):
        time.sleep(0.02)
    assert clock.seconds["broken"] < 0.02 <= clock.seconds["next"]
