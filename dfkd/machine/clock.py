"""Seconds that each phase of a stage takes."""

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator

import torch

SPANS = 1000  # number of measured spans after which they are added up


class Clock:
    """Measures seconds by phase. A phase inside another pauses the outer one, so all phases add up to the total time.

    On a CUDA device the time is taken by events in its stream. Work counts for the phase that launched it, and the
    clock does not wait for the device before `read`.

    Args:
        device: the device that computes.
        marks: whether to mark the phases for a profiler too, by the same names; this costs more than the clock itself.

    Attributes:
        seconds: {phase: seconds} of everything before the last call of `read`.
    """

    def __init__(self, device: torch.device, marks: bool = False):
        self.device, self.marks = device, marks
        self.seconds: dict[str, float] = defaultdict(float)
        self._spans: list[tuple[str, object, object]] = []  # (phase, beginning, end), not yet in `seconds`
        self._running: list[str] = []
        self._since: object = None

    @contextlib.contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        self._turn()
        self._running.append(phase)
        try:
            with torch.profiler.record_function(phase) if self.marks else contextlib.nullcontext():
                yield
        finally:
            self._turn()
            self._running.pop()

    def read(self) -> dict[str, float]:
        """Wait for the device and add all measured spans to `seconds`; returns `seconds`."""
        if self._spans and self.device.type == "cuda":
            self._spans[-1][2].synchronize()
        for phase, began, ended in self._spans:
            took = began.elapsed_time(ended) / 1000 if self.device.type == "cuda" else ended - began
            self.seconds[phase] += took
        self._spans.clear()
        return self.seconds

    def checkpoint_state(self) -> dict[str, dict[str, float]]:
        """Return the state for a checkpoint: the seconds until now, those of the running phase included."""
        self._turn()
        return {"seconds": self.read()}

    def _turn(self) -> None:
        """Assign the time since the last call to the phase that was running."""
        now = self._now()
        if self._running:
            self._spans.append((self._running[-1], self._since, now))
        self._since = now
        if len(self._spans) >= SPANS:
            self.read()

    def _now(self) -> object:
        if self.device.type != "cuda":
            return time.monotonic()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event
