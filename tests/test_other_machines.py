"""Machines that lack something: the optional packages, a home, shared memory, what only Linux has."""

import os
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from ranks import context
from runner import DFQ, ROOT, TINY, Outcome, command_line, process

# What a distribution's files in site-packages begin with.
OPTIONAL = ("wandb", "optuna", "submitit", "hydra_optuna_sweeper", "hydra_submitit_launcher", "sqlalchemy", "pyqt")


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> Path:
    """A site-packages folder without the optional packages: links to those that are needed."""
    folder = tmp_path_factory.mktemp("bare")
    (folder / "hydra_plugins").mkdir()  # a namespace of several distributions
    for place in dict.fromkeys(entry for entry in sys.path if entry.endswith("site-packages")):
        for entry in Path(place).iterdir():
            inner = entry.iterdir() if entry.name == "hydra_plugins" else [entry]
            for source in (path for path in inner if not path.name.lower().startswith(OPTIONAL)):
                target = folder / source.relative_to(place)
                if source.suffix != ".pth" and not target.exists():
                    target.symlink_to(source)
    return folder


def on_it(bare: Path, *arguments: str, cwd: Path) -> Outcome:
    """What `dfkd ARGUMENTS` does there, for a user whose home cannot be written to, in a terminal of ASCII alone,
    with a notebook's variables and others that libraries read."""
    path = os.pathsep.join(map(str, (ROOT, bare)))
    odd = {"MPLBACKEND": "module://not_here.backend", "MPLCONFIGDIR": "/dev/null/there", "TMPDIR": "/dev/null/there"}
    odd |= {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "COLUMNS": "wide", "TERM": "dumb"}
    odd |= {"OMP_NUM_THREADS": "many", "CUDA_VISIBLE_DEVICES": "mine", "PYTHONWARNINGS": "error"}
    done = process(*arguments, cwd=cwd, flags=["-S"], PYTHONPATH=path, HOME="/dev/null/home", **odd)
    return Outcome(done.returncode, done.stdout, done.stderr)


@pytest.mark.exhaustive  # the longest of all; the tests below take the same away
def test_without_what_is_optional_a_sweep_runs_to_its_report(bare, tmp_path):
    sweep = ("experiment=quickstart", "debug=smoke", "defense=atesc", "until=student")
    done = on_it(bare, "-m", *sweep, "outputs=o", cwd=tmp_path)
    assert done.code == 0 and "sweep: 1 of 1 cells" in done.err, done.err
    assert list(tmp_path.glob("o/reports/*/report.html")) and len(list(tmp_path.glob("o/runs/*/curves.png"))) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["seed=0"], "tracker: mode=offline needs Weights & Biases, which is not installed: pip install wandb, or"),
        (["-m", "hydra/sweeper=optuna", "seed=0"], "hydra/sweeper=optuna needs an extra: pip install 'dfkd[optuna]'"),
    ],
)
def test_what_needs_an_optional_package_names_it_before_any_work(bare, tmp_path, arguments, said):
    done = on_it(bare, *arguments, *TINY[1:], "outputs=o", cwd=tmp_path)
    assert (done.code, done.out) == (1, "") and f"dfkd: {said}" in done.err
    assert not list(tmp_path.glob("o/*"))


def elsewhere(change: Any, *arguments: str) -> Outcome:
    """What `dfkd ARGUMENTS` does in a process that `change` has made believe to be on another machine."""
    begin, end = context.Pipe(duplex=False)
    child = context.Process(target=_changed, args=(end, change, arguments))
    child.start()
    end.close()
    try:
        return begin.recv() if begin.poll(100) else pytest.fail("it does not answer")
    finally:
        child.join(10)
        child.kill()


def _changed(end: Any, change: Any, arguments: tuple[str, ...]) -> None:
    change()
    end.send(command_line(*arguments))


def like_macos() -> None:
    """No /proc, no list of the CPUs that a process may use, no glibc, another unit of memory."""
    import ctypes

    opened = Path.open

    def no_proc(self: Path, *arguments: Any, **options: Any) -> Any:
        if str(self).startswith("/proc"):
            raise FileNotFoundError(self)
        return opened(self, *arguments, **options)

    exists = Path.exists
    Path.open, Path.exists = no_proc, lambda self: not str(self).startswith("/proc") and exists(self)
    Path.read_text = lambda self, *given, **more: no_proc(self).read()
    ctypes.CDLL = mock.Mock(side_effect=OSError)
    sys.platform = "darwin"
    del os.sched_getaffinity


@pytest.mark.exhaustive  # a whole run in a slow process
def test_without_what_only_linux_has_a_run_ends_as_on_linux(tmp_path):
    done = elsewhere(like_macos, *TINY, *DFQ, f"outputs={tmp_path / 'there'}")
    assert done.code == 0 and "student (teacher), in percent" in done.err, done.err
    here = command_line(*TINY, *DFQ, f"outputs={tmp_path / 'here'}")
    students = [next((tmp_path / name).glob("runs/*/student.safetensors")).read_bytes() for name in ("there", "here")]
    assert here.code == 0 and students[0] == students[1]


def without_semaphores() -> None:
    """As where /dev/shm is missing or not to be written to."""
    import _multiprocessing

    class SemLock:
        SEM_VALUE_MAX = 1

        def __new__(cls, *_: Any, **__: Any) -> None:
            raise OSError(38, "Function not implemented")

    _multiprocessing.SemLock = SemLock


@pytest.mark.exhaustive
def test_without_shared_memory_cells_beside_each_other_run_in_turn(tmp_path):
    sweep = ("hydra/launcher=parallel", *TINY, *DFQ, "until=premise", "seed=0,1")
    done = elsewhere(without_semaphores, "-m", *sweep, f"outputs={tmp_path / 'o'}")
    assert "cells run one after the other: this machine has no semaphores" in done.err
    assert done.code == 0 and "sweep: 2 of 2 cells" in done.err, done.err
