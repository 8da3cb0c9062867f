"""Whole commands, each in a process of its own: a grid, a large pool, the first seconds."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmark.measure import Bench, Check, Row

ROOT = Path(__file__).resolve().parents[2]
DEFENSES, SEEDS = ("none", "atesc", "atesc_random", "ckd"), (0, 1, 2)
# Ends a run as soon as an optimiser has taken its first step.
FIRST_STEP = """
import os
from dfkd.main import cli
from dfkd.recipe import Stepper
step = Stepper.step
def first(self, loss):
    step(self, loss)
    os._exit(42)
Stepper.step = first
cli()
"""


class CommandFailed(RuntimeError):
    """A command of a row did not end as it should."""


def run(arguments: list[str], expected: int = 0) -> float:
    """Seconds of `python ARGUMENTS`."""
    places = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = os.environ | {"PYTHONPATH": places}
    with tempfile.TemporaryFile("w+") as said:  # no pipe: one would be held open by what the command leaves running
        command, began = [sys.executable, *arguments], time.perf_counter()
        done = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=said)
        seconds = time.perf_counter() - began
        if done.returncode != expected:
            said.seek(0)
            text = said.read()[-2000:].strip()
            last = (text.splitlines() or ["it printed nothing"])[-1]
            raise CommandFailed(f"{last} (python {' '.join(arguments)} ended with {done.returncode})\n{text}")
    return seconds


def dfkd(*arguments: str) -> float:
    """The same of `dfkd ARGUMENTS`."""
    return run(["-m", "dfkd", *arguments])


def results(outputs: Path) -> dict[str, dict]:
    """What the cells under a folder of outputs came to, by their names."""
    found = (json.loads(file.read_text()) for file in sorted(outputs.glob("runs/*/result.json")))
    return {result["cell"]: result for result in found}


def grid(bench: Bench) -> list[Row]:
    """A sweep of tiny cells, against the same cells one by one, each with a folder of outputs of its own."""
    seeds = SEEDS[:1] if bench.toy else SEEDS
    defenses = DEFENSES[:2] if bench.toy else DEFENSES
    rounds = bench.size(1, 20, 20)
    options = [
        "experiment=quickstart",
        "hydra/launcher=basic",
        f"runtime.device={bench.runtime.device}",
        f"teacher.epochs={bench.size(1, 10, 10)}",
        f"synthesizer.rounds={rounds}",
        "evaluate.checks=2",
        "evaluate.premise.images=100",
    ]
    cells = [(f"defense={defense}", f"seed={seed}") for defense in defenses for seed in seeds]
    outputs, alone = bench.folder / "grid", 0.0
    swept = f"defense={','.join(defenses)}", f"seed={','.join(map(str, seeds))}"
    for number, cell in enumerate(cells):
        if number == len(cells) // 2:  # in their midst, so that what else the machine does falls on both alike
            together = dfkd("-m", *options, *swept, f"outputs={outputs}")
        alone += dfkd(*options, *cell, f"outputs={bench.folder}/alone_{number}")
    cold = {k: v for number in range(len(cells)) for k, v in results(bench.folder / f"alone_{number}").items()}
    warm = results(outputs)
    count = len(cells)
    return [
        Row(
            f"{count}-cell grid ({len(defenses)} defenses x {len(seeds)} seeds)",
            f"{count} cold single cells",
            bench.at_most(0.5),
            [together / alone],
            [_same_students(bench, cold, warm, count)],
            {"s together": together, "s one by one": alone},
        )
    ]


def side_by_side(bench: Bench) -> list[Row]:
    """Small cells that share nothing, several at once on the device, against one after the other: two sweeps."""
    count, jobs = bench.size(2, 4, 12), bench.size(2, 2, 6)
    options = [
        "experiment=dfq/digits",
        f"seed=range(0,{count})",
        f"synthesizer.rounds={bench.size(1, 30, 200)}",
        f"teacher.epochs={bench.size(1, 5, 10)}",
        *(["data.limit=100"] if bench.toy else []),
        "evaluate.checks=2",
        "runtime.precision=float32",
        "runtime.threads=1",
        "tracker=files",
    ]
    device = bench.runtime.device
    place = f"{device.type}:{device.index or 0}"
    gpus = ["hydra/launcher=gpus", f"hydra.launcher.devices=[{place}]", f"hydra.launcher.jobs_per_device={jobs}"]
    folders = bench.folder / "in_turn", bench.folder / "beside"
    in_turn = dfkd("-m", *options, "hydra/launcher=basic", f"runtime.device={device}", f"outputs={folders[0]}")
    beside = dfkd("-m", *options, *gpus, f"outputs={folders[1]}")
    alone, together = map(results, folders)
    return [
        Row(
            f"{count} small cells, hydra/launcher=gpus, {jobs} at once",
            "one after the other",
            bench.at_most(1.0, 0.35),
            [beside / in_turn],
            [_same_students(bench, alone, together, count)],
            {"s beside each other": beside, "s in turn": in_turn},
        )
    ]


def _same_students(bench: Bench, first: dict[str, dict], second: dict[str, dict], count: int) -> Check:
    """Compare the students of `count` cells, whose results are given by name. A GPU does not repeat them to the bit:
    there they only have to be there."""

    def same(cell: str) -> bool:
        return cell in second and (bench.cuda or first[cell]["student_digest"] == second[cell]["student_digest"])

    return Check("students that differ or are missing", count - sum(map(same, first)), 0)


def memory(bench: Bench) -> list[Row]:
    """A pool of random float images: made, labelled, stored, loaded and distilled by one command."""
    images = bench.size(2_000, 250_000, 250_000)
    outputs, batch = bench.folder / "pool", 500
    dfkd(
        "synthesizer=noise_images",
        f"synthesizer.rounds={images // batch}",
        f"synthesizer.batch_size={batch}",
        "data.size=32",
        "data.channels=3",
        "teacher.network.widths=[4,4,8]",
        "student.network.widths=[4,4,8]",
        "teacher.epochs=1",
        "student.epochs=1",
        "student.recipe.batch_size=1000",
        "evaluate.checks=1",
        f"runtime.device={bench.runtime.device}",
        f"outputs={outputs}",
    )
    (result,) = results(outputs).values()
    peak = result["peak_memory_mb"] * 2**20  # of the device, or of the process (its ru_maxrss would begin with ours)
    size = images * 3 * 32 * 32 * 4
    allowed = 1.2 + 1e9 / size
    made = sum(result["pool_labels"])
    return [
        Row(
            f"peak memory of a run on {images:,} x 3 x 32 x 32",
            f"bytes of the pool (allowed: 1.2 times + 1 GB = {allowed:.2f})",
            bench.at_most(allowed),
            [peak / size],
            [Check("images missing", images - made, 0)],
            {"GB": peak / 1e9, "GB of the pool": size / 1e9},
        )
    ]


def first_seconds(bench: Bench) -> list[Row]:
    """From the start of the process: `dfkd --help`, and the first step of a training with the default options."""
    helps, steps = [], []
    for repeat in range(bench.repeats + 1):
        shown = run(["-m", "dfkd", "--help"])
        outputs = bench.folder / f"first_{repeat}"
        step = run(["-c", FIRST_STEP, f"outputs={outputs}", f"runtime.device={bench.runtime.device}"], 42)
        if repeat:  # the first of each fills the system's cache of files
            helps.append(shown)
            steps.append(step)
    return [
        Row("dfkd --help", "the clock", bench.at_most(0.6), helps, unit="s"),
        Row("first training step", "the clock", bench.at_most(6.0), steps, unit="s"),
    ]
