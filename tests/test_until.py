"""until=premise: a teacher is trained and judged, nothing is distilled."""

import json

import pytest
from runner import DFQ, TINY, command_line, make_cell, read_json, run

from dfkd.errors import ConfigError
from dfkd.report.runs import read
from dfkd.report.teachers import teacher_table
from dfkd.stages.prepare import prepare

SMALL = (*DFQ, "ntl_scenario=open_set", "teacher=ntl")


def test_a_judged_teacher_has_its_numbers_and_no_student(tmp_path):
    result = run(tmp_path, *SMALL, "until=premise")
    assert set(result["stages"]) == {"teacher", "judgement", "premise"}
    assert not {"student", "validation", "student_digest", "teacher_evals"} & set(result)
    assert 0 <= result["teacher"]["iacc"] <= 100 and 0 <= result["teacher"]["olacc"] <= 100
    assert len(result["flip_rates"]) == 4 and result["seconds"]["total"] > result["seconds"]["teacher"] > 0
    assert sorted(p.name for p in (tmp_path / "store").iterdir()) == ["judgement", "premise", "teacher"]
    (folder,) = (tmp_path / "runs").iterdir()
    assert not list(folder.glob("student*")) and read_json(folder / "status.json") == {"status": "done"}


def test_the_same_cell_goes_on_to_its_student_and_stays_finished(tmp_path):
    judged = make_cell(tmp_path, *SMALL, "until=premise")
    first = run(tmp_path, *SMALL, "until=premise")
    assert judged.finished_result() == first and make_cell(tmp_path, *SMALL).finished_result() is None
    whole = run(tmp_path, *SMALL)
    assert whole["hash"] == first["hash"] and whole["teacher"] == first["teacher"]
    assert {name: stage["reused"] for name, stage in whole["stages"].items()} == {
        "teacher": True,
        "judgement": True,
        "premise": False,  # as it was made; this run did not go through it
        "student": False,
    }
    assert "student" in judged.finished_result()  # what is known already is more than was asked for


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("teacher", "a run cannot end there; choose one of judgement, premise, audit, pool, split, student"),
        ("premisse", "there is no such stage; did you mean 'premise'"),
        ("[premise]", "there is no such stage"),
        ("null", "there is no such stage"),
        ("pool", "until=pool: synthesizer=dfq trains the student while it makes images"),
    ],
)
def test_another_stage_is_refused(tmp_path, wrong, said):
    with pytest.raises(ConfigError, match=said):
        prepare(make_cell(tmp_path, f"until={wrong}"))


def test_a_sweep_of_teachers_ends_in_a_table(tmp_path):
    outputs = f"outputs={tmp_path}"
    sweep = ("teacher=supervised,cuti", "seed=0,1", "evaluate.premise.eps=[4/255]")
    done = command_line("-m", *TINY, "ntl_scenario=close_set", "until=premise", *sweep, outputs)
    assert done.code == 0 and "teacher, in percent: ID accuracy" in done.err
    (file,) = (tmp_path / "reports").glob("*/teachers.md")
    text = file.read_text()
    assert text.strip() in done.out
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()[:4]]
    assert [row[:2] for row in rows] == [["supervised", "2"], ["cuti", "2"]]
    assert "flips 4/255" in head and "OLAcc" not in head and "ASR" not in head  # a close set teaches no one label


CONFIG = {"ntl_scenario": {"name": "open_set", "ood_label": 0}, "teacher": {"name": "ntl"}, "seed": 0}


@pytest.fixture
def judged(tmp_path):
    """Make a run folder of a judged teacher with one's own numbers."""

    def make(seed: int, iacc: float, flips: list[tuple], olacc: float | None = 90.0, ood=0.9, **scenario):
        folder = tmp_path / f"cell_s{seed}-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        config = CONFIG | {"seed": seed, "seeds": {}, "data": {}, "runtime": {"precision": "float32"}}
        config["ntl_scenario"] = CONFIG["ntl_scenario"] | scenario
        rows = [{"eps": eps / 255, "id": id, "ood": other} for eps, id, other in flips]
        result = {
            "cell": folder.name,
            "config": config,
            "teacher": {"iacc": iacc, "oacc": None, "olacc": olacc, "asr": None},
            "premise": {"id_confidence": 0.9, "ood_confidence": ood, "holds": [r["ood"] and True for r in rows]},
            "flip_rates": rows,
            "seconds": {"teacher": 3.0},
        }
        (folder / "result.json").write_text(json.dumps(result))
        return folder

    return make


def table(*folders) -> list[dict[str, str]]:
    text = teacher_table([read(folder) for folder in folders]).splitlines()
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text]
    return [dict(zip(lines[0], row, strict=True)) for row in lines[2:]]


def test_seeds_are_one_row_and_the_premise_holds_where_it_does_in_all(judged):
    (row,) = table(
        judged(0, 90.0, [(4, 10.0, 5.0), (8, 40.0, 20.0)]),
        judged(1, 94.0, [(4, 4.0, 5.0), (8, 60.0, 20.0)]),
    )
    assert row["n"] == "2" and row["ID acc"] == "92.0 ± 2.8" and row["OLAcc"] == "90.0 ± 0.0"
    assert row["flips 4/255"] == "7 ± 4 / 5 ± 0" and row["flips 8/255"] == "50 ± 14 / 20 ± 0"
    assert row["premise"] == "8/255"
    assert "ASR" not in row and "OOD acc" not in row


def test_where_it_fails_and_where_there_is_nothing_to_compare(judged):
    (row,) = table(judged(0, 90.0, [(4, 1.0, 5.0)]))
    assert row["premise"] == "fails" and row["flips 4/255"] == "1 / 5"
    (row,) = table(judged(1, 90.0, [(4, 1.0, None)], olacc=None, ood=None))
    assert row["flips 4/255"] == "1" and not {"premise", "OOD confidence", "OLAcc"} & set(row)
