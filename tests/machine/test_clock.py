"""The seconds of a stage, by phase."""

import time

import pytest
import torch

from dfkd.machine import clock as module
from dfkd.machine.clock import Clock


def test_a_phase_inside_another_pauses_it():
    clock, began = Clock(torch.device("cpu")), time.monotonic()
    with clock("outer"):
        time.sleep(0.02)
        with clock("inner"):
            time.sleep(0.05)
        time.sleep(0.02)
    whole = time.monotonic() - began
    assert clock.read()["inner"] >= 0.05
    assert 0.04 <= clock.read()["outer"] <= whole - 0.05
    assert sum(clock.read().values()) == pytest.approx(whole, abs=0.005)


def test_a_phase_that_returns_adds_up_and_time_between_phases_counts_nowhere():
    clock = Clock(torch.device("cpu"))
    for _ in range(2):
        with clock("work"):
            time.sleep(0.02)
        time.sleep(0.1)
    assert 0.04 <= clock.read()["work"] < 0.1


def test_a_phase_that_fails_is_closed():
    clock = Clock(torch.device("cpu"))
    with pytest.raises(RuntimeError), clock("broken"):
        raise RuntimeError
    with clock("next"):
        time.sleep(0.02)
    assert clock.read()["broken"] < 0.02 <= clock.read()["next"]


def test_a_clock_that_turns_often_keeps_few_spans(monkeypatch):
    monkeypatch.setattr(module, "SPANS", 4)
    clock = Clock(torch.device("cpu"))
    for _ in range(10):
        with clock("work"):
            time.sleep(0.001)
    assert len(clock._spans) < 4 and clock.seconds["work"] > 0
    assert clock.read()["work"] >= 0.01


def test_phases_are_marked_for_a_profiler_only_where_there_is_one():
    for marks in (False, True):
        clock = Clock(torch.device("cpu"), marks)
        with torch.profiler.profile() as seen, clock("work"):
            torch.ones(2).sin()
        assert ("work" in {event.key for event in seen.key_averages()}) == marks


def test_a_gpu_keeps_its_own_time_and_is_waited_for_once(monkeypatch):
    """The device is done with what it is asked 5 ms later each time; the host does not wait for it."""
    waited, done = [], iter(range(0, 1000, 5))

    class Event:
        def __init__(self, enable_timing: bool):
            assert enable_timing

        def record(self, stream) -> None:
            assert stream == "the stream of cuda:1"
            self.at = next(done)

        def synchronize(self) -> None:
            waited.append(self.at)

        def elapsed_time(self, other: "Event") -> float:
            return other.at - self.at

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"the stream of {device}")
    clock = Clock(torch.device("cuda:1"))
    with clock("outer"), clock("inner"):  # turns at 0, 5, 10, 15 ms
        pass
    assert waited == []
    assert clock.read() == {"outer": pytest.approx(0.010), "inner": pytest.approx(0.005)}
    assert waited == [15]
