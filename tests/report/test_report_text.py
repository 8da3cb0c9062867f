"""Markdown, CSV and LaTeX of a report."""

import csv

import pytest

from dfkd.config.lookup import one_line
from dfkd.report import text
from dfkd.report.content import Question, answer
from dfkd.report.runs import find
from dfkd.report.text import latex, markdown, markdown_table, table_csv


def report(folders, **question):
    return answer(find(folders), Question(**question))


def test_markdown_is_aligned_and_ends_with_notes_and_warnings(finished):
    said = markdown(report([finished(defense__name=name, warnings=["mind the gap"]) for name in ("none", "a|b")]))
    lines = said.splitlines()
    assert len({len(line) for line in lines[:4]}) == 1 and lines[3].startswith("| a\\|b ")
    assert lines[-2].startswith("Students are those") and lines[-1] == "WARNING: mind the gap (such in 2 cells)"


def test_a_table_for_a_page_is_not_filled_up():
    text = markdown_table(["a", ""], [["a long entry", "x|y\nz"]])
    assert text == "| a |  |\n|---|---|\n| a long entry | x\\|y z |"


def test_the_title_of_a_pivot_says_what_its_numbers_are(finished):
    assert markdown(report([finished()], columns=("defense",))).startswith("student ID; columns: defense\n\n| none ")


def test_csv_has_a_line_a_group_at_full_precision(finished):
    cells = [finished(1 / 3, seed=0), finished(2 / 3, seed=1), finished(50.0, asr=None, seed=0, defense__name="a,\nb")]
    rows = list(csv.DictReader(table_csv(report(cells, measures=("student ID", "ASR"))).splitlines(keepends=True)))
    assert [row["defense"] for row in rows] == ["none", "a, b"]
    assert rows[0]["seeds"] == "0 1" and rows[0]["student"] == "last"
    assert float(rows[0]["student_ID_mean"]) == 0.5 and float(rows[0]["student_ID_std"]) == pytest.approx(
        18**-0.5, 1e-15
    )
    assert rows[0]["student_ID_n"] == "2" and (rows[1]["ASR_mean"], rows[1]["ASR_n"]) == ("", "0")


def test_csv_of_a_pivot_is_one_line_a_crossing(finished):
    cells = [finished(defense__name=name) for name in ("none", "atesc")]
    rows = list(csv.DictReader(table_csv(report(cells, rows=("ID",), columns=("defense",))).splitlines()))
    assert [(row["ID"], row["defense"], row["student_ID_mean"]) for row in rows] == [
        ("digits", "none", "90.0"),
        ("digits", "atesc", "90.0"),
    ]


def test_latex_escapes_what_would_be_a_command(finished):
    evil = r"\input{/etc/passwd} 50% of $x_1$ & #~^<|>" + '"'
    said = latex(report([finished(90.0, defense__name=name, seed=s) for name in (evil, "[b] *") for s in (0, 1)]))
    expected = (
        r"\textbackslash{}input\{/etc/passwd\} 50\% of \$x\_1\$ \& "
        r"\#\textasciitilde{}\textasciicircum{}\textless{}\textbar{}\textgreater{}\textquotedbl{} & $2$ & "
    )
    assert expected in said and r"    {[}b] {*} & $2$ & " in said
    assert r"$90.0 \pm 0.0$" in said and r"\toprule" in said and "% needs" in said
    commands = {line.strip().split("{")[0] for line in said.splitlines() if line.strip().startswith("\\")}
    assert commands <= {
        "\\begin", "\\end", "\\centering", "\\caption", "\\toprule", "\\midrule", "\\bottomrule", "\\textbackslash"
    }  # fmt: skip


def test_what_is_not_finished_is_listed_with_its_reason_and_its_retry(finished, unfinished):
    cells = [
        finished(),
        unfinished({"status": "failed", "error": "OSError: disk", "command": "dfkd seed=1"}, seed=1),
        unfinished("running", seed=2),
    ]
    said = text.unfinished(report(cells))
    assert f"FAILED: {cells[1].name}: OSError: disk\n  retry: dfkd seed=1" in said
    assert f"KILLED: {cells[2].name}" in said and cells[0].name not in said


@pytest.mark.parametrize("name", ["=1+1", "+A1", "-x", "@SUM(A1)", "\t=1", "\r=1", " =1"])
def test_a_spreadsheet_runs_no_cell_of_a_csv_file(finished, name):
    cells = [finished(defense__name=name), finished(defense__name="-1.5"), finished(defense__name="a-b")]
    rows = list(csv.reader(table_csv(report(cells)).splitlines()))
    assert [row[0] for row in rows[1:]] == [f"'{one_line(name)}", "-1.5", "a-b"]
