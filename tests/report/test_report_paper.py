"""Published numbers beside ours, and what is said about a wrong `paper` section."""

import csv
import io

import pytest
from runner import NOISE, command_line, composed, make_cell, read_json

from dfkd.config import paper
from dfkd.config.cell import Cell
from dfkd.errors import ConfigError
from dfkd.report.content import Question, answer
from dfkd.report.page import page
from dfkd.report.runs import find
from dfkd.report.text import latex, markdown, table_csv
from dfkd.stages.prepare import prepare
from dfkd.store.run_folder import RunFolder

SAID = {"student.iacc": 96, "source": "CAKE, table 1"}


def lines(folders) -> list[list[str]]:
    (table,) = answer(find(folders), Question(measures=("student ID", "ASR"))).tables
    return [table.head, *([str(entry) for entry in line] for line in table.lines)]


@pytest.mark.parametrize(
    "section", [SAID, [SAID], {"student": {"iacc": 96}, "source": "CAKE, table 1"}], ids=["one", "list", "nested"]
)
def test_the_published_number_stands_beside_ours_with_the_difference(finished, section):
    cells = [finished(97.0, seed=0, paper=section), finished(96.5, seed=1, paper=section)]
    head, row = lines(cells)
    assert head == ["cell", "n", "student ID", "student ID, paper", "student ID - paper", "ASR"]
    assert row[2:5] == ["96.8 ± 0.4", "96.0", "+0.8"]
    assert "Paper, student ID 96: CAKE, table 1." in answer(find(cells), Question()).notes


def test_it_stands_only_beside_the_cells_it_is_for(finished):
    section = [SAID | {"student.iacc": n, "when": {"defense": name}} for n, name in ((96, "none"), (97.5, "atesc"))]
    cells = [finished(defense__name=name, paper=section) for name in ("none", "atesc", "ckd")]
    assert [row[3:5] for row in lines(cells)[1:]] == [["96.0", "-6.0"], ["97.5", "-7.5"], ["-", "-"]]


def pivoted(finished):
    cells = [finished(defense__name=name, paper=SAID | {"when": {"defense": "none"}}) for name in ("none", "atesc")]
    return answer(find(cells), Question(rows=("ID",), columns=("defense",)))


def test_in_a_pivot_it_stands_in_the_cell_with_the_difference(finished, tmp_path):
    report = pivoted(finished)
    beside = "90.0 (1) [paper 96.0, -6.0]"
    assert [str(entry) for entry in report.tables[0].lines[0]] == ["digits", beside, "90.0 (1)"]
    assert f"| digits | {beside} | 90.0 (1) |" in markdown(report)
    assert r"digits & $90.0 (1)$ [paper 96.0, $-6.0$] & $90.0 (1)$ \\" in latex(report)
    assert "90.0 <small>(1) [paper 96.0, -6.0]</small>" in page(report, tmp_path)


def test_in_a_csv_it_has_columns_of_its_own(finished):
    first, second = csv.DictReader(io.StringIO(table_csv(pivoted(finished))))
    assert (first["student_ID_paper"], first["student_ID_minus_paper"]) == ("96.0", "-6.0")
    assert (second["student_ID_paper"], second["student_ID_minus_paper"]) == ("", "")


def test_a_source_of_many_numbers_is_said_once(finished):
    section = [SAID | {"student.iacc": 90 + n, "when": {"teacher.epochs": n}} for n in range(1, 5)]
    notes = answer(find([finished(teacher__epochs=n, paper=section) for n in (1, 2)]), Question()).notes
    assert "Paper, student ID 91, 92: CAKE, table 1." in notes
    notes = answer(find([finished(teacher__epochs=n, paper=section) for n in range(1, 5)]), Question()).notes
    assert [note for note in notes if "Paper" in note] == ["Paper, student ID (4 numbers): CAKE, table 1."]


def test_a_shipped_table_shows_what_fits_the_cell(finished):
    nets = {"teacher__network": {"name": "resnet34"}, "student__network": {"name": "resnet18"}}
    cell = {"ntl_scenario__id": {"name": "cifar10"}, "paper": "cifar10"}
    (_, other, pair) = lines([finished(**cell), finished(**cell, **nets)])
    assert "-4.6" in pair and "94.6" in pair and "94.6" not in other


@pytest.mark.parametrize("name", paper.tables())
def test_a_shipped_table_is_right(tmp_path, name):
    whole = paper.entries({"paper": name})
    assert whole and not [said for said in paper.problems({"paper": whole}) if "no such key" not in said]
    assert all("trust" in entry["source"] and entry["when"] for entry in whole)


def test_a_table_that_is_not_there(tmp_path):
    cell = make_cell(tmp_path)
    cell.config["paper"] = "cifar1"
    with pytest.raises(ConfigError, match="paper: there is no table 'cifar1'; did you mean 'cifar10'"):
        prepare(cell)


def test_cells_that_disagree_about_it_have_none(finished):
    head, _ = lines([finished(seed=0, paper=SAID), finished(seed=1, paper=SAID | {"student.iacc": 50})])
    assert not any("paper" in column for column in head)


def test_it_is_part_of_no_hash(tmp_path):
    with_it = composed("+paper.student.iacc=96", "+paper.source=x", f"outputs={tmp_path}")
    assert Cell(with_it).hash == Cell(composed(f"outputs={tmp_path}")).hash


@pytest.mark.parametrize(
    ("section", "said"),
    [
        (
            {"student.iac": 96, "source": "x"},
            "paper.student.iac: there is no such measure; did you mean 'student.iacc'?",
        ),
        ({"student.iacc": "96%", "source": "x"}, "paper.student.iacc must be a number, got '96%'"),
        ({"student.iacc": True, "source": "x"}, "paper.student.iacc must be a number, got True"),
        ({"student.iacc": 96}, "paper.source is missing: say where student.iacc was published"),
        ({"source": "x"}, "paper: no number in {'source': 'x'}; write a measure, as student.iacc: 96"),
        (SAID | {"when": "dfq"}, "paper.when must be keys and values, as {synthesizer: dfq}, got 'dfq'"),
        (SAID | {"when": {"defence": "x"}}, "paper.when.defence: there is no such key; did you mean 'defense'?"),
        (["96"], "paper: an entry is a number and its source, as student.iacc: 96, source: ...; got '96'"),
    ],
)
def test_a_wrong_section_is_one_clear_message_before_any_work(tmp_path, section, said):
    cell = make_cell(tmp_path)
    cell.config["paper"] = section
    with pytest.raises(ConfigError) as error:
        prepare(cell)
    assert str(error.value) == said


def test_a_right_section_is_no_problem(tmp_path):
    assert paper.problems(make_cell(tmp_path, "experiment=cake/mnist").config) == []


def test_numbers_published_later_come_without_a_new_run(tmp_path):
    command = ("debug=smoke", *NOISE, "runtime.device=cpu", f"outputs={tmp_path / 'o'}")
    assert command_line(*command).code == 0
    (file,) = (tmp_path / "o").glob("runs/*/result.json")
    before = read_json(file)
    done = command_line(*command, "+paper.student.iacc=96", "+paper.source=x")
    assert done.code == 0 and "was finished before" in done.err
    section = {"student": {"iacc": 96}, "source": "x"}
    after = read_json(file)
    assert after | {"digest": None} == before | {"config": before["config"] | {"paper": section}, "digest": None}
    assert RunFolder(file.parent).damage() is None  # its checksums are those of the new content
    wrong = command_line(*command, "+paper.student.iacc=96")
    assert wrong.code == 1 and "paper.source is missing" in wrong.err
    assert read_json(file)["config"]["paper"] == section
