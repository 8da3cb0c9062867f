"""Half 1, what is fast: the benchmark (scripts/bench.py) in the time that is left."""

import functools
import tempfile
from pathlib import Path

import bench
from benchmark import table
from benchmark.measure import Bench

from dfkd.machine.runtime import make_runtime
from gpu import clock, rows

# Those that start no process of their own.
CASES = (
    *("matrix_product", "cnn_synthesis", "resnet_synthesis", "student", "views", "teacher", "generator", "bn_prior"),
    *("dfq", "atesc", "replicas"),
)


def run(device: str, deadline: clock.Deadline, out: Path, only: str = "", toy: bool = False) -> None:
    """Measure all cases that are not there yet, until the deadline (`rows.run`): {case: {'rows': ...}}."""
    with tempfile.TemporaryDirectory() as folder:
        measured = Bench(make_runtime(device), 1 if toy else 3, toy, Path(folder))
        cases = [(case, functools.partial(_case, measured, case)) for case in (CASES[:1] if toy else CASES)]
        rows.run(device, deadline, out, cases, only, precision=measured.runtime.precision)


def _case(measured: Bench, case: str) -> dict:
    return table.as_json(bench.measure(measured, [case]), {})
