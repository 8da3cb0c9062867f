"""`dfkd-report`: what it prints and writes, and what it says to a mistake."""

import resource
import subprocess
import sys

import pytest
from runner import process_environment

from dfkd.report.cli import cli


@pytest.fixture
def report(tmp_path, monkeypatch, capsys):
    """Call the command in the folder of the runs; returns (exit message or None, standard output)."""

    def call(*arguments) -> tuple[str | None, str]:
        monkeypatch.chdir(tmp_path)
        try:
            cli([str(argument) for argument in arguments])
        except SystemExit as end:
            return str(end.code), capsys.readouterr().out
        return None, capsys.readouterr().out

    return call


def test_it_prints_the_table_and_writes_what_was_asked_for(finished, unfinished, report, tmp_path):
    finished(), unfinished("interrupted", seed=1)
    error, said = report(tmp_path, "--format", "md,csv,latex", "--to", "there")
    assert error is None and said.startswith("| cell") and "INTERRUPTED: cell_s1" in said
    assert sorted(file.name for file in (tmp_path / "there").iterdir()) == ["table.csv", "table.md", "table.tex"]
    assert (tmp_path / "there" / "table.md").read_text().splitlines()[0] == said.splitlines()[0]


def test_by_default_it_is_everything_under_outputs(finished, report, tmp_path):
    assert report()[0] == "dfkd-report: there is no 'outputs'"
    finished()
    (tmp_path / "outputs").mkdir()
    (tmp_path / "runs").rename(tmp_path / "outputs" / "runs")
    error, said = report("--format", "csv")
    assert error is None and "| cell" in said
    assert len(list((tmp_path / "outputs" / "reports").glob("*/table.csv"))) == 1


def test_the_same_question_goes_to_the_same_folder_another_to_another(finished, report, tmp_path):
    """One reloads the page of a sweep that still runs."""
    finished()
    for arguments in ((), (), ("--rows", "defense")):
        report(tmp_path, "--format", "md", *arguments)
        finished(seed=len(arguments) + 1, defense__name="atesc")
    assert len(list((tmp_path / "reports").glob("*/table.md"))) == 2


def test_all_that_a_pivot_takes(finished, report, tmp_path):
    for name in ("none", "atesc", "ckd"):
        finished(best=91.5, defense__name=name)
    question = ("--rows", "teacher network", "--columns", "defense", "--where", "defense=none,atesc", "seed=0")
    error, said = report(tmp_path, *question, "--measures", "student ID", "--student", "best", "--format", "md")
    assert error is None and "| cnn_bn          | 91.5 (1) | 91.5 (1) |" in said and "ckd" not in said


def test_nothing_finished_yet_is_said(unfinished, report, tmp_path):
    unfinished("running")
    error, said = report(tmp_path)
    assert error is None and said.startswith("No cell has finished.\n\nKILLED: cell_s0")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--fromat", "md"), "there is no '--fromat'; did you mean '--format'?"),
        (("--format", "htm"), "--format has no 'htm'; did you mean 'html'?"),
        (("--student", "bst"), "--student has no 'bst'; did you mean 'best'?"),
        (("--where", "defense"), "--where takes KEY=VALUE, as defense=atesc, got 'defense'"),
        (("--rows",), "argument --rows: expected at least one argument"),
        (("--rows", "defnse"), "--rows 'defnse': no cell has such a key; did you mean 'defense'?"),
        (("rnus",), "there is no 'rnus'; did you mean 'runs'?"),
    ],
    ids=str,
)
def test_a_mistake_is_one_message(finished, report, arguments, said):
    finished()
    place = () if arguments == ("rnus",) else ("runs",)
    assert report(*place, *arguments) == (f"dfkd-report: {said}", "")


def test_a_folder_that_cannot_be_written_is_named(finished, report, tmp_path):
    finished()
    (tmp_path / "file").write_text("")
    error, _ = report("runs", "--to", "file/below")
    assert error.startswith("dfkd-report: ") and "file/below" in error


def test_help_is_quick_and_imports_neither_torch_nor_matplotlib():
    code = "import sys\nfrom dfkd.report.cli import cli\ntry:\n    cli()\nfinally:\n    print(*sys.modules)"
    began = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-c", code, "--help"]
    done = subprocess.run(command, env=process_environment(), capture_output=True, text=True)
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "--columns" in done.stdout and done.stderr == ""
    assert not {"torch", "matplotlib", "PIL"} & set(done.stdout.split())
    assert ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime < 0.6  # 0.2 s; whatever else is running


def test_a_page_needs_no_torch_and_python_m_is_the_same(finished, tmp_path):
    finished()
    code = "import sys, runpy\nrunpy.run_module('dfkd.report', run_name='__main__')\nassert 'torch' not in sys.modules"
    command = [sys.executable, "-c", code, str(tmp_path), "--to", str(tmp_path / "there")]
    done = subprocess.run(command, env=process_environment(), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") and (tmp_path / "there" / "report.html").exists()
