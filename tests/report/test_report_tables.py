"""What the tables say: mean and sample standard deviation over seeds, missing as missing, pivots, notes."""

import shutil
from pathlib import Path

import pytest

from dfkd.config.lookup import flatten, matches, number_at, option, value_at
from dfkd.errors import ConfigError
from dfkd.report.content import Question, answer
from dfkd.report.groups import undefended
from dfkd.report.runs import find


def report(folders: list[Path], **question):
    return answer(find(folders), Question(**question))


def table(folders: list[Path], number: int = 0, **question) -> list[dict[str, str]]:
    """The rows of a table by column."""
    found = report(folders, **question).tables[number]
    return [dict(zip(found.head, map(str, line), strict=True)) for line in found.lines]


def test_cells_that_differ_in_their_seed_are_one_row_of_mean_and_sample_std(finished):
    (row,) = table([finished(90.0, 10.0, seed=0), finished(92.0, 20.0, seed=1), finished(97.0, 60.0, seed=2)])
    assert row["n"] == "3"
    assert row["student ID"] == "93.0 ± 3.6"  # sqrt((9 + 1 + 16) / 2)
    assert row["ASR"] == "30.0 ± 26.5"  # sqrt((400 + 100 + 900) / 2)
    assert row["teacher ID"] == "99.0 ± 0.0"
    assert row["teacher evals"] == "7 ± 0" and row["seconds"] == "10 ± 0"


def test_one_cell_has_no_standard_deviation(finished):
    (row,) = table([finished(90.04)])
    assert row["n"] == "1" and row["student ID"] == "90.0"


def test_the_best_student_is_another_number_and_the_notes_say_which(finished):
    folders = [finished(iacc=90.0, best=93.0)]
    assert table(folders)[0]["student ID"] == "90.0" and table(folders, student="best")[0]["student ID"] == "93.0"
    assert "those of the last round" in report(folders).notes[0]
    assert "those best on validation" in report(folders, student="best").notes[0]


def test_rows_are_named_by_the_options_that_differ(finished):
    rows = table([finished(defense__name=name, seed=seed) for name in ("none", "atesc") for seed in (0, 1)])
    assert [(row["defense"], row["n"]) for row in rows] == [("none", "2"), ("atesc", "2")]
    assert "synthesizer" not in rows[0] and "teacher" not in rows[0]


def test_rows_that_differ_in_a_number_only_are_named_by_it(finished):
    rows = table([finished(teacher__epochs=epochs) for epochs in (3, 5)])
    assert [row["teacher.epochs"] for row in rows] == ["3", "5"]


def test_a_part_that_differs_is_shown_by_its_name_not_by_its_numbers(finished):
    triggers = [{"name": "sig", "amplitude": 0.1}, {"name": "patch", "amplitude": 0.9}]
    rows = table([finished(ntl_scenario__trigger=trigger) for trigger in triggers])
    assert [row["ntl_scenario.trigger"] for row in rows] == ["sig", "patch"]
    assert "ntl_scenario.trigger.amplitude" not in rows[0]


@pytest.mark.parametrize(
    "change",
    [
        {"tracker__mode": "online"},
        {"runtime__device": "cuda"},
        {"outputs": "else"},
        {"data__root": "elsewhere"},
        {"data__download": True},
        {"paper": {"student.iacc": 3, "source": "x"}},
    ],
    ids=str,
)
def test_what_cannot_change_a_result_makes_no_row_of_its_own(finished, change):
    (row,) = table([finished(seed=0), finished(seed=1, **change)])
    assert row["n"] == "2"


def test_another_precision_is_another_row(finished):
    """It is part of a cell's content, so the same seed counts twice otherwise."""
    rows = table([finished(), finished(runtime__precision="bfloat16")])
    assert [row["n"] for row in rows] == ["1", "1"]


def test_missing_is_shown_as_missing(finished):
    rows = table([finished(asr=None, teacher_asr=None), finished(asr=40.0, defense__name="atesc")])
    assert [row["ASR"] for row in rows] == ["-", "40.0"]
    assert "OLAcc" not in rows[0]  # nobody has it: no column


def test_a_mean_is_over_the_cells_that_have_the_number(finished):
    (row,) = table([finished(asr=None, seed=0), finished(asr=40.0, seed=1)])
    assert row["ASR"] == "40.0"


@pytest.mark.parametrize("value", ["<b>", True, float("nan"), float("inf"), [1], {"a": "b"}])
def test_what_is_no_number_is_missing(finished, value):
    (row,) = table([finished(asr=value)], measures=("ASR",))
    assert row["ASR"] == "-"


def test_the_fragile_share_is_shown_where_something_was_split(finished):
    assert "fragile" not in table([finished()])[0]
    assert table([finished(fragile=0.256)])[0]["fragile"] == "0.26"


def test_rows_by_keys_and_measures_by_name_or_path(finished):
    cells = [finished(teacher__epochs=epochs, seed=seed) for epochs in (3, 5) for seed in (0, 1)]
    rows = table(cells, rows=("teacher.epochs", "defense"), measures=("student.iacc", "seconds.distill"))
    expected = {"defense": "none", "n": "2", "student ID": "90.0 ± 0.0", "seconds.distill": "2.5 ± 0"}
    assert rows == [{"teacher.epochs": epochs} | expected for epochs in ("3", "5")]


def test_a_pivot_shows_every_crossing_and_why_it_is_empty(finished, unfinished):
    cells = [
        finished(90.0, seed=0),
        finished(92.0, seed=1),
        finished(80.0, defense__name="atesc"),
        finished(70.0, synthesizer__name="cake"),
        unfinished("interrupted", synthesizer__name="cake", defense__name="atesc"),
        finished(60.0, synthesizer__name="mad", defense__name="atesc"),
    ]
    rows = table(cells, columns=("defense",))  # rows: what else differs
    assert rows == [
        {"synthesizer": "dfq", "none": "91.0 ± 1.4 (2)", "atesc": "80.0 (1)"},
        {"synthesizer": "cake", "none": "70.0 (1)", "atesc": "interrupted"},
        {"synthesizer": "mad", "none": "missing", "atesc": "60.0 (1)"},
    ]


def test_a_pivot_of_several_measures_is_several_tables(finished):
    question = {"rows": ("teacher.epochs",), "columns": ("seed", "defense"), "measures": ("ASR", "student ID")}
    found = report([finished(seed=1)], **question).tables
    assert [t.title for t in found] == ["ASR; columns: seed, defense", "student ID; columns: seed, defense"]
    assert found[0].head == ["teacher.epochs", "1, none"]


def test_a_mean_over_different_settings_says_so(finished):
    cells = [finished(teacher__epochs=3), finished(teacher__epochs=5, seed=1)]
    (note,) = (note for note in report(cells, rows=("defense",)).notes if "different settings" in note)
    assert note.startswith("none is a mean") and "teacher.epochs" in note and "seed" not in note.split("differ in")[1]
    assert not any("different settings" in note for note in report(cells).notes)


def test_a_cell_that_lies_in_two_folders_is_not_counted_twice_in_silence(finished, tmp_path):
    cell = finished()
    shutil.copytree(tmp_path / "runs", tmp_path / "elsewhere" / "runs")
    found = report([tmp_path, tmp_path / "elsewhere"])
    assert any("lies in several folders" in note and cell.name in note for note in found.notes)
    assert not any("several folders" in note for note in report([cell]).notes)


def test_seeds_that_others_have_are_named(finished):
    cells = [finished(seed=seed) for seed in (0, 1)] + [finished(seed=1, defense__name="atesc")]
    assert "atesc: missing seeds 0." in report(cells).notes
    cells.append(finished(seed=7, defense__name="abd"))  # now nobody has all
    assert not any("missing seeds" in note for note in report(cells).notes)


def test_only_chosen_cells(finished):
    cells = [finished(defense__name=name) for name in ("none", "ckd", "atesc")]
    assert [r["defense"] for r in table(cells, where=(("defense", "atesc,none"),), rows=("defense",))] == [
        "none",
        "atesc",
    ]
    assert len(report(cells, where=(("teacher.epochs", "3.0"), ("defense", "ckd"))).runs) == 1


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ({"rows": ("defnse",)}, "--rows 'defnse': no cell has such a key; did you mean 'defense'?"),
        ({"columns": ("teacher.epohcs",)}, "--columns 'teacher.epohcs': no cell has such a key; did you mean 'teach"),
        ({"rows": ("zzz",)}, "no cell has such a key; known: ID, OOD, defense"),
        ({"where": (("defence", "none"),)}, "--where 'defence': no cell has such a key; did you mean 'defense'?"),
        ({"where": (("defense", "atsec"),)}, "--where defense=atsec: no cell has it; did you mean 'atesc'?"),
        ({"measures": ("studnt ID",)}, "--measures 'studnt ID': no finished cell has it; did you mean 'student ID'?"),
        ({"measures": ("seconds.distil",)}, "did you mean 'seconds.distill'?"),
    ],
    ids=str,
)  # fmt: skip
def test_a_misspelt_question_is_told_the_nearest_name(finished, question, said):
    with pytest.raises(ConfigError) as error:
        report([finished(), finished(defense__name="atesc")], **question)
    assert said in str(error.value)


def test_nothing_finished_yet_is_no_table(unfinished):
    found = report([unfinished("running")])
    assert found.tables == [] and found.notes == ["No cell has finished."] and len(found.unfinished) == 1


def test_the_undefended_row_differs_in_the_defense_alone(finished):
    cells = [
        finished(teacher__epochs=epochs, defense={"name": name} | more)
        for epochs in (3, 5)
        for name, more in (("none", {}), ("atesc", {"weight": 1}))
    ]
    groups = report(cells).groups
    assert [undefended(group, groups) for group in groups] == [None, groups[0], None, groups[2]]
    assert [group.name for group in groups] == ["none, teacher.epochs=3", "atesc, teacher.epochs=3",
                                                "none, teacher.epochs=5", "atesc, teacher.epochs=5"]  # fmt: skip


def test_a_warning_is_said_once_whatever_its_numbers(finished):
    cells = [finished(seed=seed, warnings=[f"saturated on {10 + seed}% of images"]) for seed in (0, 1)]
    found = report([*cells, finished(seed=2, warnings=["other"])]).warnings
    assert {text: len(names) for text, names in found.items()} == {"saturated on 10% of images": 2, "other": 1}


def test_looking_up_and_flattening():
    node = {"a": {"b": 1, "c": [1, 2]}, "d": None}
    assert value_at(node, "a.b") == 1 and value_at(node, "a.x") is None and value_at(node, "d.x") is None
    assert number_at({"evals": {"synthesis": 3, "distill": 4}}, "evals") == 7
    assert flatten(node) == {"a.b": 1, "a.c": [1, 2], "d": None}


def test_a_key_is_answered_by_a_name_or_by_what_is_there():
    config = {"teacher": {"name": "ntl", "lr": 0.5}, "prior": {"bn": {"weight": 1}, "tv": {}}, "none": {}, "x": None}
    words = {"teacher": "ntl", "teacher.lr": "0.5", "prior": "bn+tv", "none": "none", "x": "null", "teacher.y": None}
    assert {key: option(config, key) for key in words} == words
    assert matches("1e-3", "0.001") and matches("a,b", "b") and matches("[1, 2]", "[1, 2]") and not matches("a", None)
