"""Killed again and again, at any moment, by any signal: the numbers are those of an undisturbed run."""

import logging
import os
import random
import signal
import threading
import time

import pytest
from killing import left_over, numbers, outcome
from ranks import context  # children begin with all imports done
from runner import BACKDOOR, a_few, make_cell, read_json, status, without_pictures

from dfkd.cli.inventory import take_inventory
from dfkd.config.cell import Cell

SMALL = (
    *("debug=smoke", "runtime.device=cpu", "runtime.precision=float32", "runtime.threads=1", "tracker=files"),
    *("limit={rounds:6,epochs:2,steps:3}", "evaluate.images=20", "evaluate.premise.images=20"),
    *("student.network.widths=[4,4,4]", "runtime.checkpoint_every=0"),
    *("teacher.recipe.batch_size=256", "teacher.network.widths=[4,8,8]"),
)
# Options of a run, and the stages it has loops in.
RUNS = {
    "online": (
        ("synthesizer=dfq", "synthesizer.rounds=6", "synthesizer.batch_size=16", "synthesizer.images=32"),
        ("synthesizer.generator.width=8", "student.recipe.batch_size=16", *BACKDOOR, "defense=atesc"),
        {"teacher", "student"},
    ),
    "offline": (
        ("synthesizer=cake", "synthesizer.rounds=6", "synthesizer.batch_size=200", "synthesizer.steps=3"),
        ("runtime.chunk=200", "student.recipe.batch_size=128", "defense=atesc"),
        {"teacher", "pool", "split", "student"},
    ),
}
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


def child(cell: Cell, steps: int, wait: float, number: int) -> None:
    """Run a cell; a signal comes `wait` seconds after a checkpoint has passed so many steps."""
    from dfkd.machine import interrupt
    from dfkd.resume.checkpoints import Checkpoints
    from dfkd.run.run_cell import run_cell

    passed, left = Checkpoints.passed, [steps]

    def strike() -> None:
        time.sleep(wait)
        os.kill(os.getpid(), number)

    def count(self: Checkpoints, loop, done: int) -> None:
        left[0] -= 1
        if left[0] == 0:
            threading.Thread(target=strike, daemon=True).start()
        passed(self, loop, done)

    Checkpoints.passed = count
    logging.getLogger("dfkd").setLevel(logging.ERROR)
    try:
        with interrupt.listening(), without_pictures():
            run_cell(cell)
    except KeyboardInterrupt:
        os._exit(130)


def attempt(cell: Cell, steps: int = 0, wait: float = 0, number: int = 0) -> int:
    """The exit code of a child; -N if signal N ended it."""
    process = context.Process(target=child, args=(cell, steps, wait, number))
    process.start()
    process.join(600)
    process.kill()
    return process.exitcode


def unfinished(cell: Cell) -> set[str]:
    """The stage that has a checkpoint."""
    return {
        left.stage for left in take_inventory(cell.outputs).leftovers if left.kind == "checkpoint" and not left.made
    }


def check(cell: Cell, calm: Cell) -> None:
    """Two runs have come to the same, and left nothing else."""
    assert numbers(read_json(cell.folder / "result.json")) == numbers(read_json(calm.folder / "result.json"))
    assert outcome(cell) == outcome(calm)
    assert not left_over(cell.outputs)


@pytest.mark.parametrize("name", a_few(RUNS, "online"))
@pytest.mark.parametrize("kills", [3, pytest.param(13, marks=pytest.mark.exhaustive)])
def test_many_kills_do_not_change_a_number(tmp_path, name, kills):
    first, second, stages = RUNS[name]
    overrides = (*first, *second, *SMALL)
    calm, chance = make_cell(tmp_path / "calm", *overrides), random.Random(name)
    assert attempt(calm) == 0
    codes, lives, struck = [], 0, set()
    while codes.count(-signal.SIGKILL) < kills or 130 not in codes or struck < stages:
        lives += 1
        assert lives < 10
        cell = make_cell(tmp_path / str(lives), *overrides)
        while not (cell.folder / "result.json").exists():
            number = signal.SIGKILL if chance.random() < 0.8 else chance.choice(SIGNALS)
            wait = chance.choice((0, 0.001, 0.005, 0.02))
            codes.append(attempt(cell, chance.randint(1, 4), wait, number))
            assert codes[-1] in (0, 130, -number), "the child failed by itself"
            assert status(cell.folder) == {0: "done", 130: "interrupted"}.get(codes[-1], "killed")
            struck |= unfinished(cell)
        check(cell, calm)
