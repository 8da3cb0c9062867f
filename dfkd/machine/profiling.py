"""runtime.profile=true: the time that each torch operator takes in a stage."""

import contextlib
import logging
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from dfkd.machine.clock import Clock

log = logging.getLogger("dfkd")
os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # otherwise torch's profiler prints every start and stop
# What is profiled: at most so many seconds and so many steps of a loop; in a longer stage they follow after as much of
# warm-up. A GPU takes many steps in three seconds, of which torch's profiler would need minutes to make a table: half a
# millisecond for each kernel, of which a step has hundreds.
WINDOW, STEPS = 3.0, {"cpu": 20, "cuda": 4}
clocks: list[Clock] = []  # of the stage that is profiled
ROWS, NAMED = 30, 4  # number of operators in the file and on the console
LONGEST = 60  # letters of the name of one on the console: a kernel's, made from its templates, may have a thousand


@contextlib.contextmanager
def profiled(stage: str, device: torch.device, folder: Path) -> Iterator[Callable[[], None]]:
    """Profile a few seconds of the block. Yields a function that must be called between the steps of the block.

    A line in the log has the seconds of the phases of a round in the whole stage (`Clock`), and the operators that take
    most of the time of the profiled steps. Files that are written into `folder`:
        profile_<stage>.txt: the operators, sorted by the time that they take (on the GPU, if there is one);
        profile_<stage>.json.gz: the timeline, for https://ui.perfetto.dev or chrome://tracing; the phases of a round
            (synthesis, split, distill, evaluate) are marked.
    """
    clocks.clear()
    window = ProfileWindow(device)
    try:
        yield window.between
    finally:
        window.stop()
    table, operators = window.read()
    summary = ", ".join([*_phases(), operators])
    text, timeline = folder / f"profile_{stage}.txt", folder / f"profile_{stage}.json.gz"
    text.write_text(table + "\n")
    window.profile.export_chrome_trace(str(timeline))
    window.forget()
    log.info("  profile  %s: %s", stage, summary)
    log.info("           %s, and the timeline beside it", text)


def phase_clock(device: torch.device, marks: bool) -> Clock:
    """Return a clock whose phases are told of a stage that is profiled.

    Args:
        marks: whether a stage is profiled; then the phases are marked in its timeline, too.
    """
    clock = Clock(device, marks)
    if marks:
        clocks.append(clock)
    return clock


def _phases() -> list[str]:
    """Return the seconds of the phases of the stage, and their share, as text."""
    seconds: Counter[str] = Counter()
    for clock in clocks:
        seconds.update(clock.read())
    total = sum(seconds.values()) or 1.0
    return [f"{name} {spent:.1f} s ({100 * spent / total:.0f} %)" for name, spent in seconds.items()]


class ProfileWindow:
    """A profiler that starts at once, starts again after WINDOW seconds or STEPS steps of warm-up, and stops after as
    much again."""

    def __init__(self, device: torch.device):
        self.device, self.most = device, STEPS[device.type]
        self._start(is_warm=False)

    def _start(self, is_warm: bool) -> None:
        kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self.device.type == "cuda" else [])]
        self.profile, self.is_warm, self.running = profile(activities=kinds), is_warm, True
        self.profile.start()
        self.began, self.steps = time.monotonic(), 0

    def between(self) -> None:
        if not self.running:
            return
        self.steps += 1
        if self.steps < self.most and time.monotonic() - self.began < WINDOW:
            return
        self.stop()
        if not self.is_warm:
            self.forget()
            self._start(is_warm=True)

    def stop(self) -> None:
        if self.running:
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            self.profile.stop()
            self.running = False

    def forget(self) -> None:
        """Free what was recorded at once: torch's profiler belongs to a cycle of objects, and would keep it until some
        later garbage collection."""
        self.profile.profiler = None

    def read(self) -> tuple[str, str]:
        """Return (table of the operators; the operators that take most of the time in one line), both as text."""
        kind = "device" if self.device.type == "cuda" else "cpu"
        every = self.profile.key_averages()
        table = every.table(sort_by=f"self_{kind}_time_total", row_limit=ROWS, max_name_column_width=70)

        def spent(row) -> float:
            return getattr(row, f"self_{kind}_time_total")

        every_operator = [row for row in every if not getattr(row, "is_user_annotation", False)]
        total = sum(map(spent, every_operator)) or 1
        first = sorted(every_operator, key=spent, reverse=True)[:NAMED]
        shares = [f"{_short(row.key)} {100 * spent(row) / total:.0f} %" for row in first]
        steps = f"{self.steps} steps" if self.steps > 1 else "one step"
        return table, f"operators of {steps}: {', '.join(shares)}"


def _short(name: str) -> str:
    """Return the name of an operator or a GPU kernel without the types in it."""
    return re.split(r"[<(]", name, maxsplit=1)[0].removeprefix("void ")[:LONGEST] or name
