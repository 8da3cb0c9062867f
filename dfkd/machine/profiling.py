"""runtime.profile=true: where the time of a stage goes, operator by operator."""

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

log = logging.getLogger("dfkd")
os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler tells every start and stop on the console
WINDOW = 3.0  # seconds looked at; as long before them count as setting up, if the stage is that long
ROWS, NAMED = 30, 4  # operators in the file, and on the console


@contextlib.contextmanager
def profiled(stage: str, device: torch.device, folder: Path) -> Iterator[Callable[[], None]]:
    """Look at a few seconds of the block. Yields what has to be called between its steps.

    Writes into the folder:
        profile_<stage>.txt: the operators, those first that take most of the time (of the GPU, if there is one);
        profile_<stage>.json.gz: the timeline, for https://ui.perfetto.dev or chrome://tracing; the phases of a round
            (synthesis, split, distill, evaluate) are marked.
    """
    look = Look(device)
    try:
        yield look.between
    finally:
        look.stop()
    table, summary = look.read()
    text, timeline = folder / f"profile_{stage}.txt", folder / f"profile_{stage}.json.gz"
    text.write_text(table + "\n")
    look.profile.export_chrome_trace(str(timeline))
    log.info("  profile  %s: %s", stage, summary)
    log.info("           %s, and the timeline beside it", text)


class Look:
    """A profiler that starts at once, starts anew after WINDOW seconds, and stops after as many more."""

    def __init__(self, device: torch.device):
        self.device = device
        self._start(settled=False)

    def _start(self, settled: bool) -> None:
        kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self.device.type == "cuda" else [])]
        self.profile, self.settled, self.running = profile(activities=kinds), settled, True
        self.profile.start()
        self.began = time.monotonic()

    def between(self) -> None:
        if not self.running or time.monotonic() - self.began < WINDOW:
            return
        self.stop()
        if not self.settled:
            self._start(settled=True)

    def stop(self) -> None:
        if self.running:
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            self.seconds = time.monotonic() - self.began
            self.profile.stop()
            self.running = False

    def read(self) -> tuple[str, str]:
        """The table, and a line with the operators that take most of the time."""
        kind = "device" if self.device.type == "cuda" else "cpu"
        every = self.profile.key_averages()
        table = every.table(sort_by=f"self_{kind}_time_total", row_limit=ROWS, max_name_column_width=70)

        def spent(row) -> float:
            return getattr(row, f"self_{kind}_time_total")

        total = sum(map(spent, every)) or 1
        first = sorted(every, key=spent, reverse=True)[:NAMED]
        return table, f"{self.seconds:.1f} s, " + ", ".join(f"{r.key} {100 * spent(r) / total:.0f} %" for r in first)
