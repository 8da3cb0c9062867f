"""Half 1, ways to start a run: from another folder, by torchrun, and with a profiler."""

import functools
import re
import shutil
import tempfile
import time
from pathlib import Path

import torch

from dfkd.run.run_cell import run_cell
from gpu import clock, command, compose, right, rows

PROFILED = (
    *("experiment=fast/digits", "synthesizer.rounds=24", "synthesizer.warm_up=20", "synthesizer.steps=10"),
    *("student.steps=50", "teacher.epochs=2", "tracker=files", "runtime.profile=true"),
)
SAME = 0.02  # as much as two students may differ: a GPU adds up in another order each time
LIMIT = 40.0  # seconds in which a cell with a profiler has to end


def same_student(start: tuple[str, ...], device: str, deadline: clock.Deadline) -> dict:
    """Compute the smallest cell by a command in an empty folder, and in this process, with the same teacher.

    Args:
        start: the words that start dfkd.
    """
    threads = torch.get_num_threads()  # torchrun would choose one
    one_step = [*right.TOY, *right.STEPS["student"], "synthesizer=dfq"]
    words = [*one_step, f"runtime.device={device}", f"runtime.threads={threads}"]
    with tempfile.TemporaryDirectory() as folder:
        here, there = Path(folder, "here"), Path(folder, "there")
        run_cell(compose.cell(*words, f"outputs={here}"))
        shutil.copytree(here / "store" / "teacher", there / "store" / "teacher")
        began = time.monotonic()
        command.run([*words, f"outputs={there}"], Path(folder, "empty"), deadline, start)
        seconds = time.monotonic() - began
        gap = right.difference(right.weights(there, "student"), right.weights(here, "student"))
    compared = f"the student's weights with those of the same cell in this process: {gap:.1e} ({SAME:g})"
    return {"right": gap <= SAME, "compared": compared, "seconds": round(seconds, 1)}


def profile(device: str, deadline: clock.Deadline, toy: bool = False) -> dict:
    """Run a cell with a profiler, which has to end in time and to say what the phases of the student's stage take."""
    words = [*PROFILED, *(right.TOY if toy else ()), f"runtime.device={device}"]
    own, began = clock.Deadline(min(LIMIT + clock.GRACE, deadline.left)), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        try:
            printed = command.run([*words, f"outputs={folder}/outputs"], Path(folder), own)
        except clock.TimeUp:
            if deadline.left <= clock.GRACE:  # that of the half, not LIMIT
                raise
            return {"right": False, "compared": f"it had not ended after {LIMIT:.0f} s"}
    seconds = time.monotonic() - began
    told = next(iter(re.findall(r"profile +student: (.*)", printed)), "nothing")
    named = all(phase in told for phase in ("synthesis", "distill"))
    compared = f"it ended after {seconds:.0f} s ({LIMIT:.0f}) and says of the student's stage: {told}"
    return {"right": named, "compared": compared, "seconds": round(seconds, 1)}


MEASURES = {  # each takes (device, deadline, toy)
    "runtime.profile=true": profile,
    "dfkd in another folder": lambda device, deadline, toy: same_student(command.DFKD, device, deadline),
    "torchrun with one rank": lambda device, deadline, toy: same_student(command.TORCHRUN, device, deadline),
}


def run(device: str, deadline: clock.Deadline, out: Path, only: str = "", toy: bool = False) -> None:
    """Measure all rows that are not there yet, until the deadline (`rows.run`)."""
    measures = [(name, functools.partial(measure, device, deadline, toy)) for name, measure in MEASURES.items()]
    rows.run(device, deadline, out, measures, only)
