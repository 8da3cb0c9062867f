"""Where the time of a stage goes."""

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator

import torch


class Clock:
    """Seconds by phase. A phase inside another pauses the outer one, so the phases add up to the whole.

    A profiler sees them under the same names.

    Args:
        device: a CUDA device is waited for at the end of a phase, else its work would count as the next phase's.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)
        self._running: list[str] = []
        self._since = 0.0

    @contextlib.contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        self._turn()
        self._running.append(phase)
        try:
            with torch.profiler.record_function(phase):
                yield
        finally:
            self._turn()
            self._running.pop()

    def checkpoint_state(self) -> dict[str, dict[str, float]]:
        """For a checkpoint: the seconds up to now, of phases that go on too."""
        self._turn()
        return {"seconds": self.seconds}

    def _turn(self) -> None:
        """Book the time since the last turn on the phase that was running."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = time.monotonic()
        if self._running:
            self.seconds[self._running[-1]] += now - self._since
        self._since = now
