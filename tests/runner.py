"""Shared by the tests of whole runs: compose a cell, run it with the smallest numbers, call the command line."""

import contextlib
import functools
import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest
from hydra.core.hydra_config import HydraConfig
from PIL import Image

from dfkd import main
from dfkd.config.cell import Cell
from dfkd.report import figures as report_figures
from dfkd.report.runs import read as read_run
from dfkd.stages import run_figures
from dfkd.sweeps.compose import composed

ROOT = Path(__file__).resolve().parents[1]
# Seconds instead of minutes, and the same bits every time.
TINY = (
    "debug=smoke",
    "runtime.device=cpu",
    "runtime.precision=float32",
    "runtime.threads=1",
    "synthesizer.rounds=2",
    "evaluate.premise.images=20",
)
DFQ = ("synthesizer.batch_size=16", "synthesizer.images=32", "synthesizer.generator.width=8")
CAKE = ("synthesizer=cake", "synthesizer.batch_size=20", "synthesizer.steps=2", "student.recipe.batch_size=16")
NOISE = ("synthesizer=noise_images", "synthesizer.batch_size=32", "student.recipe.batch_size=16")
BACKDOOR = ("ntl_scenario=backdoor", "teacher=backdoor")


def run_on(device: str) -> None:
    """Let the runs of the smallest numbers compute on a device. To be called before a test module imports TINY."""
    global TINY
    TINY = tuple(f"runtime.device={device}" if word.startswith("runtime.device=") else word for word in TINY)


@functools.cache
def pixel() -> bytes:
    """A PNG file of one pixel."""
    out = io.BytesIO()
    Image.new("RGB", (1, 1)).save(out, "PNG")
    return out.getvalue()


def drawn_by(draw: Callable, as_svg: Callable, as_png: Callable) -> contextlib.AbstractContextManager:
    """Inside the block these functions draw the pictures of runs and reports."""
    patches = contextlib.ExitStack()
    patches.enter_context(mock.patch.object(run_figures, "draw", draw))
    patches.enter_context(mock.patch.multiple(report_figures, as_svg=as_svg, as_png=as_png))
    return patches


with_pictures = functools.partial(drawn_by, run_figures.draw, report_figures.as_svg, report_figures.as_png)


def without_pictures() -> contextlib.AbstractContextManager:
    """Inside the block a picture is one pixel: for the smallest sweep matplotlib takes longer than everything else."""
    return drawn_by(
        lambda figure, path, dpi: path.write_bytes(pixel()),
        lambda figure: '<svg width="1pt" height="1pt"/>',
        lambda report: pixel(),
    )


def a_few(names: Iterable[str], *few: str) -> list:
    """Parameters of a test, of which `make test` takes only these few."""
    every = list(names)
    assert set(few) <= set(every)
    return [name if name in few else pytest.param(name, marks=pytest.mark.exhaustive) for name in every]


def make_cell(outputs: Path, *overrides: str) -> Cell:
    """A cell of the smallest numbers; the synthesizer has to come before what is set in it."""
    chosen = [o for o in overrides if o.startswith("synthesizer=")]
    return Cell(composed(*chosen, *TINY, *(o for o in overrides if o not in chosen), f"outputs={outputs}"))


def run(outputs: Path, *overrides: str) -> dict:
    """The result of a cell of the smallest numbers."""
    from dfkd.run.run_cell import run_cell

    return run_cell(make_cell(outputs, *overrides))


@dataclass
class Outcome:
    """What a command left: exit code, standard output, standard error."""

    code: int
    out: str
    err: str


def command_line(*arguments: str) -> Outcome:
    """What `dfkd ARGUMENTS` does, in this process; environment, path and logging are put back."""
    log, out, err = logging.getLogger("dfkd"), io.StringIO(), io.StringIO()
    before = log.handlers[:], log.level, log.propagate
    log.handlers, code = [], 0
    with (
        mock.patch.object(sys, "argv", ["dfkd", *arguments]),
        mock.patch.object(sys, "path", sys.path[:]),
        mock.patch.dict(os.environ, {"HYDRA_FULL_ERROR": "0"}),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main.cli()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
        finally:
            log.handlers, log.level, log.propagate = before
            HydraConfig.instance().cfg = None  # `--cfg job` leaves it set
    return Outcome(code, out.getvalue(), err.getvalue())


def process(*arguments: str, cwd: Path, flags: Sequence[str] = (), **environment: str) -> subprocess.CompletedProcess:
    """`python FLAGS -m dfkd ARGUMENTS` in a process of its own."""
    return subprocess.run(
        [sys.executable, *flags, "-m", "dfkd", *arguments],
        cwd=cwd,
        env=process_environment(**environment),
        capture_output=True,
        text=True,
        timeout=120,
    )


def process_environment(**more: str) -> dict[str, str]:
    """An environment in which a process finds this checkout's dfkd, on one thread."""
    kept = {key: value for key, value in os.environ.items() if key not in ("HYDRA_FULL_ERROR", "DFKD_SWEEP")}
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return kept | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"} | more


def read_json(path: Path) -> dict:
    return json.loads(path.read_text())


def status(folder: Path) -> str:
    """What the report says about a run folder."""
    return read_run(folder).status


def write_component(folder: Path, module: str, code: str, **options: str) -> None:
    """A module of a user's own and its YAML files (`group__option='text'`) under `folder`/options."""
    (folder / f"{module}.py").write_text(code)
    for name, text in options.items():
        file = folder / "options" / (name.replace("__", "/") + ".yaml")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
