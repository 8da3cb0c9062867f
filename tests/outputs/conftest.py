"""An outputs folder with a finished cell, a judged teacher and the list of their sweep, to be damaged."""

import copy
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from runner import NOISE, make_cell, run

from dfkd.cli.store import main
from dfkd.config.cell import Cell
from dfkd.report.content import Question, answer
from dfkd.report.runs import find
from dfkd.report.text import markdown, unfinished

OPTIONS = (*NOISE, "tracker=files", "evaluate.images=20")
JUDGED = (*OPTIONS, "until=premise", "seeds.student=1")


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    """The folder as two runs have left it; do not change it."""
    outputs = tmp_path_factory.mktemp("made")
    rows = []
    for number, options in enumerate((OPTIONS, JUDGED)):
        run(outputs, *options)
        folder = make_cell(outputs, *options).folder
        rows.append({"number": number, "folder": str(folder), "arguments": [], "status": "done"})
    (outputs / "sweeps").mkdir()
    (outputs / "sweeps" / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return outputs


@pytest.fixture(scope="session")
def made_cells(made) -> tuple[Cell, Cell]:
    return make_cell(made, *OPTIONS), make_cell(made, *JUDGED)


@pytest.fixture
def outputs(made, tmp_path) -> Path:
    """A copy of it; its files are links, so whoever changes one removes it first."""
    shutil.copytree(made, tmp_path / "o", copy_function=os.link)
    return tmp_path / "o"


@pytest.fixture
def cells(made_cells, outputs) -> tuple[Cell, Cell]:
    """The two cells in the copy: the finished one, and the judged teacher."""
    return tuple(moved(cell, outputs) for cell in made_cells)


def moved(cell: Cell, outputs: Path) -> Cell:
    """The same cell in another outputs folder."""
    same = copy.copy(cell)
    same.outputs, same.folder = outputs, outputs / "runs" / cell.name
    return same


@pytest.fixture
def store(monkeypatch, capsys):
    """Call `python -m dfkd.store`; gives its exit code, or the message with which it ends, and what was printed."""

    def call(outputs: Path, *arguments: str) -> tuple[int | str, str]:
        monkeypatch.setattr(sys, "argv", ["store", *arguments, "--outputs", str(outputs)])
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code, capsys.readouterr().out

    return call


@pytest.fixture
def reported():
    """Make a report; gives status by name of its cells, and its text."""

    def call(outputs: Path) -> tuple[dict[str, str], str]:
        runs = find([outputs])
        report = answer(runs, Question())
        return {run.name: run.status for run in runs}, f"{markdown(report)}\n{unfinished(report)}"

    return call
