"""Half 2, whole cells on the digits: several at once on the device, and bfloat16 beside float32."""

import functools
import statistics
import tempfile
import time
from pathlib import Path

from benchmark import commands
from benchmark.measure import Bench

from dfkd.machine.runtime import make_runtime
from gpu import clock, command, right, rows

SEEDS = (0, 1, 2)
PRECISIONS = ("float32", "bfloat16")


def side_by_side(device: str, deadline: clock.Deadline, out: Path, toy: bool = False) -> dict:
    """Measure the row of the benchmark. What was stopped begins anew, so nothing of it is kept in `out`."""
    with tempfile.TemporaryDirectory() as folder:
        (row,) = commands.side_by_side(Bench(make_runtime(device), 1, toy, Path(folder)))
    rates = ", ".join(f"{name} {value:.0f}" for name, value in row.rates.items())
    compared = f"{row.what}: {row.median:.2f} of the time {row.against} (at most {row.goal.value:g}); {rates}"
    wrong = "".join(f"; {check.what}: {check.error:g}" for check in row.checks if not check.passed)
    return {"right": row.met and row.correct, "compared": compared + wrong, "ratio": row.median}


def precisions(device: str, deadline: clock.Deadline, out: Path, toy: bool = False) -> dict:
    """Train a teacher and a student in each precision, with three seeds, and compare the students' accuracies.

    Args:
        out: folder of the cells, which are resumed where they were stopped.
    """
    sweep = [f"runtime.precision={','.join(PRECISIONS)}", f"seed={','.join(map(str, SEEDS))}", "tracker=files"]
    smallest = [word for word in right.TOY if not word.startswith("runtime.precision=")] if toy else []
    words = ["-m", "experiment=dfq/digits", *smallest, *sweep, *command.beside(device), f"outputs={out}"]
    began = time.monotonic()
    command.run(words, out, deadline)
    found: dict[str, list[float]] = {name: [] for name in PRECISIONS}
    for result in commands.results(out).values():
        found[result["precision"]].append(result["student"]["iacc"])
    return within_spread(found) | {"seconds": round(time.monotonic() - began, 1)}


def within_spread(found: dict[str, list[float]]) -> dict:
    """Compare the mean accuracies of two precisions.

    Args:
        found: {precision: ID accuracies of its students, in percent}.

    Returns:
        a row, right if the means differ by no more than the seeds of a precision do: the larger of the two distances
        of the best seed to the worst one.
    """
    exact, coarse = found.values()
    gap = abs(statistics.mean(coarse) - statistics.mean(exact))
    spread = max(max(values) - min(values) for values in (exact, coarse))
    told = ", ".join(f"{name} {' '.join(f'{value:.1f}' for value in values)}" for name, values in found.items())
    compared = f"students' ID accuracy: {told}; the means differ by {gap:.2f}, the seeds of one by up to {spread:.2f}"
    return {"right": gap <= spread, "compared": compared}


# Each takes (device, deadline, folder of its cells, toy). An H100 took 75 and 50 seconds for them.
MEASURES = {"12 small cells beside each other": side_by_side, "bfloat16 beside float32": precisions}


def measures(device: str, deadline: clock.Deadline, out: Path, toy: bool = False) -> list[rows.Row]:
    """Return the rows, whose cells lie in folders of `out`."""
    return [
        (name, functools.partial(measure, device, deadline, out.resolve() / name.replace(" ", "_"), toy))
        for name, measure in MEASURES.items()
    ]
