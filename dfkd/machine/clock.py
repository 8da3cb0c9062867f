"""Where the time of a stage goes."""

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator

import torch

SPANS = 1000  # that are kept until they are added up


class Clock:
    """Seconds by phase. A phase inside another pauses the outer one, so the phases add up to the whole.

    A CUDA device keeps its own time, by events in its stream: what a phase asked of it counts as that phase's, and
    nobody waits for it.

    Args:
        marks: whether a profiler is to see the phases, under the same names: that costs more than the clock itself.

    Attributes:
        seconds: by phase, of all that was settled.
    """

    def __init__(self, device: torch.device, marks: bool = False):
        self.device, self.marks = device, marks
        self.seconds: dict[str, float] = defaultdict(float)
        self._spans: list[tuple[str, object, object]] = []  # phase, its beginning, its end
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

    def settle(self) -> dict[str, float]:
        """Add up what was measured, which waits for the device; returns `seconds`."""
        if self._spans and self.device.type == "cuda":
            self._spans[-1][2].synchronize()
        for phase, began, ended in self._spans:
            took = began.elapsed_time(ended) / 1000 if self.device.type == "cuda" else ended - began
            self.seconds[phase] += took
        self._spans.clear()
        return self.seconds

    def checkpoint_state(self) -> dict[str, dict[str, float]]:
        """For a checkpoint: the seconds up to now, of phases that go on too."""
        self._turn()
        return {"seconds": self.settle()}

    def _turn(self) -> None:
        """Book the time since the last turn on the phase that was running."""
        now = self._now()
        if self._running:
            self._spans.append((self._running[-1], self._since, now))
        self._since = now
        if len(self._spans) >= SPANS:
            self.settle()

    def _now(self) -> object:
        if self.device.type != "cuda":
            return time.monotonic()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event
