"""Half 1, what is fast: the benchmark (scripts/bench.py) in the time that is left."""

import contextlib
import sys
import tempfile
from pathlib import Path

import bench
from benchmark import table
from benchmark.measure import Bench

from dfkd.machine.runtime import make_runtime
from gpu import about, clock

# Those that start no process of their own.
CASES = ("cnn_synthesis", "resnet_synthesis", "student", "replicas", "teacher", "generator", "dfq", "atesc", "bn_prior")


def run(device: str, deadline: clock.Deadline, out: Path, toy: bool = False) -> None:
    """Measure one case after the other until the deadline; write `out` after each. A case that fails is left out."""
    rows, repeats = [], 1 if toy else 3
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(clock.TimeUp), deadline.enforced():
        measured = Bench(make_runtime(device), repeats, toy, Path(folder))
        for case in ("student",) if toy else CASES:
            try:
                rows += bench.CASES[case](measured)
            except clock.TimeUp:
                raise
            except Exception as error:
                print(f"benchmark {case}: {type(error).__name__}: {error}", file=sys.stderr)
            about.write(out, table.as_json(rows, {"command": "make gpu"} | table.machine(measured)))
