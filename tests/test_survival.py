"""Killed again and again, at any moment, by any signal: the numbers are those of an undisturbed run."""

import logging
import multiprocessing
import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest
from killing import left_over, numbers, outcome
from runner import BACKDOOR, make_cell, read_json, status

from dfkd.cell import Cell
from dfkd.store import Store

# Children begin with all imports done, of a server that has not computed anything: torch does not survive a fork after.
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["runner", "dfkd.run"])

SMALL = (
    *("debug=smoke", "runtime.device=cpu", "runtime.precision=float32", "runtime.threads=1", "tracker=files"),
    *(
        "limit={rounds:8,epochs:3,steps:2}",
        "synthesizer.rounds=8",
        "evaluate.checks=3",
        "evaluate.images=20",
        "evaluate.premise.images=20",
    ),
    *("student.network.widths=[4,4,4]", "student.recipe.batch_size=16", "runtime.checkpoint_every=0"),
    *("teacher.recipe.batch_size=256", "teacher.network.widths=[4,8,8]"),
)
RUNS = {
    "online": (
        *("synthesizer=dfq", "synthesizer.batch_size=16", "synthesizer.images=32", "synthesizer.generator.width=8"),
        *(*BACKDOOR, "defense=atesc"),
    ),
    "offline": (
        *("synthesizer=cake", "synthesizer.batch_size=100", "synthesizer.steps=2", "runtime.chunk=100"),
        *("student.recipe.batch_size=64", "defense=atesc"),
    ),
}
SIGNALS = [signal.SIGKILL] * 4 + [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1]


def child(outputs: Path, overrides: tuple[str, ...], steps: int, wait: float, number: int) -> None:
    """Run a cell; a signal comes `wait` seconds after a checkpoint has passed so many steps."""
    from dfkd import interrupt
    from dfkd.checkpoints import Checkpoints
    from dfkd.run import run_cell

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
        with interrupt.listening():
            run_cell(make_cell(outputs, *overrides))
    except KeyboardInterrupt:
        os._exit(130)


def attempt(cell: Cell, overrides: tuple[str, ...], steps: int = 0, wait: float = 0, number: int = 0) -> int:
    """The exit code of a child; -N if signal N ended it."""
    process = context.Process(target=child, args=(cell.outputs, overrides, steps, wait, number))
    process.start()
    process.join(600)
    process.kill()
    return process.exitcode


@pytest.mark.parametrize("name", RUNS)
def test_many_kills_do_not_change_a_number(tmp_path, name):
    overrides = (*RUNS[name], *SMALL)
    calm, cell = make_cell(tmp_path / "calm", *overrides), make_cell(tmp_path / "killed", *overrides)
    assert attempt(calm, overrides) == 0
    chance, codes = random.Random(name), []
    while not codes or codes[-1] != 0:
        plan = chance.randint(1, 4), chance.choice([0, 0.001, 0.005, 0.02, 0.05]), chance.choice(SIGNALS)
        codes.append(attempt(cell, overrides, *plan))
        assert codes[-1] in (0, 130, -plan[2]), "the child failed by itself"
        assert status(cell.folder) == {0: "done", 130: "interrupted"}.get(codes[-1], "killed")
        assert (cell.folder / "result.json").exists() == (codes[-1] == 0)
    assert len(codes) > 13 and codes.count(-signal.SIGKILL) > 6 and codes.count(130) > 2
    assert numbers(read_json(cell.folder / "result.json")) == numbers(read_json(calm.folder / "result.json"))
    assert outcome(cell) == outcome(calm)
    assert not left_over(cell.outputs)
    store = Store(cell.outputs / "store")
    for folder in store.root.glob("*/*/"):
        assert store._read(folder, folder.name, pytest.fail).meta
