"""runtime.profile=true: the time that each torch operator takes in a stage."""

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

log = logging.getLogger("dfkd")
os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # otherwise torch's profiler prints every start and stop
WINDOW = 3.0  # seconds that are profiled; in a longer stage they follow after as many seconds of warm-up
ROWS, NAMED = 30, 4  # number of operators in the file and on the console


@contextlib.contextmanager
def profiled(stage: str, device: torch.device, folder: Path) -> Iterator[Callable[[], None]]:
    """Profile a few seconds of the block. Yields a function that must be called between the steps of the block.

    Files that are written into `folder`:
        profile_<stage>.txt: the operators, sorted by the time that they take (on the GPU, if there is one);
        profile_<stage>.json.gz: the timeline, for https://ui.perfetto.dev or chrome://tracing; the phases of a round
            (synthesis, split, distill, evaluate) are marked.
    """
    window = ProfileWindow(device)
    try:
        yield window.between
    finally:
        window.stop()
    table, summary = window.read()
    text, timeline = folder / f"profile_{stage}.txt", folder / f"profile_{stage}.json.gz"
    text.write_text(table + "\n")
    window.profile.export_chrome_trace(str(timeline))
    log.info("  profile  %s: %s", stage, summary)
    log.info("           %s, and the timeline beside it", text)


class ProfileWindow:
    """A profiler that starts at once, starts again after WINDOW seconds of warm-up, and stops WINDOW seconds later."""

    def __init__(self, device: torch.device):
        self.device = device
        self._start(is_warm=False)

    def _start(self, is_warm: bool) -> None:
        kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self.device.type == "cuda" else [])]
        self.profile, self.is_warm, self.running = profile(activities=kinds), is_warm, True
        self.profile.start()
        self.began = time.monotonic()

    def between(self) -> None:
        if not self.running or time.monotonic() - self.began < WINDOW:
            return
        self.stop()
        if not self.is_warm:
            self._start(is_warm=True)

    def stop(self) -> None:
        if self.running:
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            self.seconds = time.monotonic() - self.began
            self.profile.stop()
            self.running = False

    def read(self) -> tuple[str, str]:
        """Return (table of the operators, one line with the operators that take most of the time), both as text."""
        kind = "device" if self.device.type == "cuda" else "cpu"
        every = self.profile.key_averages()
        table = every.table(sort_by=f"self_{kind}_time_total", row_limit=ROWS, max_name_column_width=70)

        def spent(row) -> float:
            return getattr(row, f"self_{kind}_time_total")

        total = sum(map(spent, every)) or 1
        first = sorted(every, key=spent, reverse=True)[:NAMED]
        return table, f"{self.seconds:.1f} s, " + ", ".join(f"{r.key} {100 * spent(r) / total:.0f} %" for r in first)
