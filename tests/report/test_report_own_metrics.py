"""Metrics and losses of configurations, as reports show them."""

from pathlib import Path

import pytest

from dfkd.config.paper import problems
from dfkd.main import in_a_line
from dfkd.report.content import Question, answer
from dfkd.report.page import page
from dfkd.report.runs import find, read
from dfkd.report.tables import measure, metrics_of
from dfkd.report.teachers import teacher_table
from dfkd.report.text import markdown, table_csv
from dfkd.store.run_folder import RunFolder

ECE = {"ece": {"label": "calibration error", "form": "number", "lower_is_better": True, "compute": {"_target_": "no"}}}


@pytest.fixture
def measured(finished):
    """Make a run folder that has a metric of its own."""

    def make(student=3.25, teacher=1.5, **cell) -> Path:
        folder = finished(metrics=ECE, **cell)
        result = RunFolder(folder).record()
        for part, value in (("student", student), ("student_best_on_validation", student), ("teacher", teacher)):
            result[part]["ece"] = value
        RunFolder(folder).write_result(result)
        return folder

    return make


def rows(folders: list[Path], **question) -> list[dict[str, str]]:
    (table,) = answer(find(folders), Question(**question)).tables
    return [dict(zip(table.head, map(str, line), strict=True)) for line in table.lines]


def test_it_stands_behind_the_usual_columns_of_the_cells_that_have_it(measured, finished):
    folders = [measured(seed=0), measured(student=3.75, seed=1), finished(synthesizer__name="cake")]
    one, other = rows(folders)
    assert list(one)[-2:] == ["teacher calibration error", "calibration error"]
    assert one["calibration error"] == "3.5 ± 0.3536" and one["teacher calibration error"] == "1.5 ± 0"
    assert other["calibration error"] == "-" and other["student ID"] == "90.0"


def test_without_it_a_table_is_what_it_was(finished):
    (row,) = rows([finished()])
    assert list(row) == ["cell", "n", "teacher ID", "student ID", "agreement", "teacher ASR", "ASR", "teacher evals",
                         "seconds"]  # fmt: skip


@pytest.mark.parametrize("name", ["calibration error", "student.ece"])
def test_it_is_asked_for_by_its_label_or_its_path(measured, name):
    (row,) = rows([measured()], measures=(name,))
    assert row["calibration error"] == "3.25"
    best = measure(name, "best", metrics_of([read(measured(student=4.0, seed=1))]))
    assert best.path == "student_best_on_validation.ece" and best.of_teacher().path == "teacher.ece"


def test_it_is_in_every_form_of_a_report(measured, tmp_path):
    report = answer(find([measured()]), Question())
    assert "calibration error" in markdown(report) and "calibration_error_mean" in table_csv(report)
    assert 'title="calibration error, lower is better"' in page(report, tmp_path)
    assert 'title="attack success (%), lower is better"' in page(report, tmp_path)


def test_it_is_in_the_table_of_teachers(measured):
    head, _, row = (line.split("|") for line in teacher_table([read(measured())]).splitlines())
    assert [cell.strip() for cell in row][[cell.strip() for cell in head].index("calibration error")] == "1.5"


def test_the_line_of_a_run_keeps_numbers_that_are_no_percentages_apart():
    both = {"student": {"iacc": 90.0, "ece": 3.25}, "teacher": {"iacc": 99.0, "ece": None}, "config": {"metrics": ECE}}
    assert in_a_line(both) == "student (teacher), in percent: ID accuracy 90.0 (99.0); calibration error 3.25"
    alone = {"teacher": {"iacc": 99.0, "ece": 0.5}, "config": {"metrics": ECE}}
    assert in_a_line(alone) == "teacher, in percent: ID accuracy 99.0; calibration error 0.5"


def test_a_published_number_can_stand_beside_it():
    section = {"student.ece": 2.0, "source": "somebody, somewhere"}
    assert problems({"paper": section, "metrics": ECE}) == []
    (said,) = problems({"paper": section, "metrics": {}})
    assert "paper.student.ece: there is no such measure" in said


KL = {"_target_": "dfkd.distill.KL", "temperature": 1.0}


def test_a_loss_is_shown_by_its_name_and_a_student_before_its_loss(finished):
    losses = [KL | {"name": "kl"}, {"_target_": "dfkd.distill.L1", "name": "l1"}]
    found = rows([finished(student__loss=loss) for loss in losses])
    assert [row["student.loss"] for row in found] == ["kl", "l1"]
    found = rows([finished(student__loss=loss, student__name=name) for loss, name in zip(losses, "ab", strict=True)])
    assert [row["student"] for row in found] == ["a", "b"] and "student.loss" not in found[0]


def test_a_cell_from_before_losses_had_names_is_in_one_row_with_a_cell_of_today(finished):
    (row,) = rows([finished(student__loss=KL, seed=0), finished(student__loss=KL | {"name": "kl"}, seed=1)])
    assert row["n"] == "2"
