"""Tables over finished cells: mean and sample standard deviation over seeds, missing as missing."""

import copy
import json
from pathlib import Path

import pytest
from PIL import Image

from dfkd.report import collect, flatten, lookup, markdown, report

CONFIG = {
    "ntl_scenario": {"name": "backdoor", "id": {"name": "digits"}},
    "teacher": {"name": "backdoor", "epochs": 3, "network": {"name": "cnn_bn"}},
    "synthesizer": {"name": "dfq"},
    "noise": {"name": "none"},
    "student": {"name": "online", "network": {"name": "cnn_bn"}},
    "defense": {"name": "none"},
    "seed": 0,
    "seeds": {"teacher": 0},
    "runtime": {"device": "cpu", "precision": "float32"},
    "tracker": {"mode": "offline"},
    "outputs": "outputs",
    "data": {"root": "data"},
}


@pytest.fixture
def finished(tmp_path):
    """Make a run folder with a result of one's own numbers; `path=value` in dotted paths changes its configuration."""

    def make(iacc=90.0, asr=50.0, seed=0, warnings=(), teacher_asr=100.0, fragile=1.0, **config) -> Path:
        chosen = copy.deepcopy(CONFIG) | {"seed": seed, "seeds": {"teacher": seed}}
        for path, value in config.items():
            node = chosen
            *way, last = path.split("__")
            for key in way:
                node = node[key]
            node[last] = value
        folder = tmp_path / "runs" / f"cell_s{seed}-{len(list(tmp_path.glob('runs/*'))):08d}"
        folder.mkdir(parents=True)
        result = {
            "cell": folder.name,
            "config": chosen,
            "teacher": {"iacc": 99.0, "oacc": None, "olacc": None, "asr": teacher_asr},
            "student": {"iacc": iacc, "oacc": None, "olacc": None, "asr": asr, "agreement": 95.0},
            "fragile_share": fragile,
            "seconds": {"total": 10.0},
            "warnings": list(warnings),
        }
        (folder / "result.json").write_text(json.dumps(result))
        return folder

    return make


def table(folders: list[Path]) -> list[dict[str, str]]:
    """The rows of the printed table by column."""
    lines = markdown(collect(folders)).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


def test_a_part_that_differs_is_shown_by_its_name_not_by_its_numbers(finished):
    triggers = [{"name": "sig", "amplitude": 0.1}, {"name": "patch", "amplitude": 0.9}]
    rows = table([finished(ntl_scenario__trigger=trigger) for trigger in triggers])
    assert [row["ntl_scenario.trigger"] for row in rows] == ["sig", "patch"]
    assert "ntl_scenario.trigger.amplitude" not in rows[0]


def test_cells_that_differ_in_their_seed_are_one_row_of_mean_and_sample_std(finished):
    (row,) = table([finished(90.0, 10.0, seed=0), finished(92.0, 20.0, seed=1), finished(97.0, 60.0, seed=2)])
    assert row["n"] == "3"
    assert row["student ID"] == "93.0 ± 3.6"  # sqrt((9 + 1 + 16) / 2)
    assert row["ASR"] == "30.0 ± 26.5"  # sqrt((400 + 100 + 900) / 2)
    assert row["teacher ID"] == "99.0 ± 0.0"


def test_one_cell_has_no_standard_deviation(finished):
    (row,) = table([finished(90.04)])
    assert row["n"] == "1" and row["student ID"] == "90.0"


def test_rows_are_named_by_the_options_that_differ(finished):
    rows = table([finished(defense__name=name, seed=seed) for name in ("none", "atesc") for seed in (0, 1)])
    assert [(row["defense"], row["n"]) for row in rows] == [("none", "2"), ("atesc", "2")]
    assert "synthesizer" not in rows[0] and "teacher" not in rows[0]


def test_rows_that_differ_in_a_number_only_are_named_by_it(finished):
    rows = table([finished(teacher__epochs=epochs) for epochs in (3, 5)])
    assert [row["teacher.epochs"] for row in rows] == ["3", "5"]


@pytest.mark.parametrize("change", [{"tracker__mode": "online"}, {"runtime__device": "cuda"}, {"outputs": "else"}])
def test_what_cannot_change_a_result_makes_no_row_of_its_own(finished, change):
    (row,) = table([finished(seed=0), finished(seed=1, **change)])
    assert row["n"] == "2"


@pytest.mark.parametrize("change", [{"data__root": "elsewhere"}, {"data__download": True}])
def test_where_the_data_lie_makes_no_row_of_its_own(finished, change):
    (row,) = table([finished(seed=0), finished(seed=1, **change)])
    assert row["n"] == "2"


def test_another_precision_is_another_row(finished):
    """It is part of a cell's content, so the same seed counts twice otherwise."""
    rows = table([finished(), finished(runtime__precision="bfloat16")])
    assert [row["n"] for row in rows] == ["1", "1"]


def test_the_same_folder_counts_once(finished):
    folder = finished()
    (row,) = table([folder, folder])
    assert row["n"] == "1"


def test_missing_is_shown_as_missing(finished):
    rows = table([finished(asr=None, teacher_asr=None), finished(asr=40.0, defense__name="atesc")])
    assert [row["ASR"] for row in rows] == ["-", "40.0"]
    assert "OLAcc" not in rows[0]  # nobody has it: no column


def test_a_mean_is_over_the_cells_that_have_the_number(finished):
    (row,) = table([finished(asr=None, seed=0), finished(asr=40.0, seed=1)])
    assert row["ASR"] == "40.0"


def test_the_fragile_share_is_shown_where_something_was_split(finished):
    assert "fragile" not in table([finished()])[0]
    assert table([finished(fragile=0.256)])[0]["fragile"] == "0.26"


def test_the_report_is_a_table_a_figure_and_the_warnings(finished, tmp_path):
    folders = [finished(defense__name=name, warnings=["mind the gap"]) for name in ("none", "atesc")]
    said = report(folders, tmp_path / "reports")
    (out,) = (tmp_path / "reports").iterdir()
    text = (out / "table.md").read_text()
    assert "| atesc" in text and text.count("mind the gap") == 1 and "| atesc" in said
    assert str(out / "figure.png") in said and Image.open(out / "figure.png").size[0] > 300


@pytest.mark.parametrize(
    "cells",
    [
        [{"asr": None, "teacher_asr": None}],  # no trap: bars
        [{}, {"defense__name": "atesc"}],  # a trap
        [{"asr": None, "teacher_asr": None, "ntl_scenario__name": "none"}, {}],  # both in one sweep
    ],
    ids=["no trap", "trap", "mixed"],
)
def test_every_mixture_of_cells_can_be_drawn(finished, tmp_path, cells):
    report([finished(**cell) for cell in cells], tmp_path / "reports")
    assert list((tmp_path / "reports").glob("*/figure.png"))


def test_looking_up_and_flattening():
    node = {"a": {"b": 1, "c": [1, 2]}, "d": None}
    assert lookup(node, "a.b") == 1 and lookup(node, "a.x") is None and lookup(node, "d.x") is None
    assert lookup({"evals": {"synthesis": 3, "distill": 4}}, "evals") == 7
    assert flatten(node) == {"a.b": 1, "a.c": [1, 2], "d": None}
