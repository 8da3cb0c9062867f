"""The pages of the studies: what is written between the marks, the index, and one study from end to end."""

import re
import shutil
import subprocess

import pytest
import write_study
from matplotlib.figure import Figure
from runner import ROOT, command_line
from studies import kept, pages
from test_presets import STUDIES as PRESETS

from dfkd.report import figures
from dfkd.report.runs import Run

DOCS = ROOT / "docs" / "studies"
SMOKE = ("debug=smoke", "hydra/launcher=basic", "evaluate.premise.images=20", "+limit.batch_size=16", "+limit.width=4")


def cell(seed: int, iacc: float, name: str = "a") -> Run:
    result = {"student": {"iacc": iacc}, "teacher": {"iacc": 99.0}, "seconds_this_run": 30.0}
    return Run(f"{name}_{seed}", None, "done", {"seed": seed, "name": name}, result)


def test_the_words_around_the_marks_stay(tmp_path):
    file = tmp_path / "mine.md"
    file.write_text(f"# Mine\n\nbefore\n\n{pages.BEGIN}\nold\n{pages.END}\n\nafter\n")
    pages.write(
        "mine",
        pages.Page("new", Figure()),
        [cell(0, 1.0), cell(1, 1.0)],
        [Run("c", None, "failed", reason="why")],
        tmp_path,
    )
    text = file.read_text()
    assert text.startswith("# Mine\n\nbefore") and text.endswith("after\n") and "old" not in text
    assert "\n\nnew\n\n2 cells, 2 seeds, 1 minutes" in text and "\n\nFailed: `c`: why\n\n" in text
    assert "(mine.png)" in text and (tmp_path / "mine.png").exists()


def test_a_page_without_a_new_figure_keeps_the_one_that_is_there(tmp_path):
    (tmp_path / "mine.md").write_text(f"{pages.BEGIN}\n{pages.END}\n")
    (tmp_path / "mine.png").write_bytes(b"old")
    pages.write("mine", pages.Page("new", None), [cell(0, 1.0)], [], tmp_path)
    assert (tmp_path / "mine.png").read_bytes() == b"old" and "(mine.png)" in (tmp_path / "mine.md").read_text()


def test_a_page_without_marks_is_refused_and_not_changed(tmp_path):
    (tmp_path / "mine.md").write_text(f"# Mine\n{pages.BEGIN}\n")
    with pytest.raises(ValueError, match="must hold the lines"):
        pages.write("mine", pages.Page("new", Figure()), [], [], tmp_path)
    assert (tmp_path / "mine.md").read_text() == f"# Mine\n{pages.BEGIN}\n"


def test_a_comparison_shows_differences_by_seed_to_its_control():
    groups = {"a": [cell(0, 90.0), cell(1, 80.0)], "b": [cell(0, 91.0), cell(1, 83.0)]}
    text = pages.compare(groups, ["student ID"], "a", ["student ID"])
    (line,) = (line for line in text.splitlines() if line.startswith("| b"))
    assert "87.0 ± 5.7" in line and "+2.0 (-10.7 to +14.7)" in line and "0.3" in line


def test_a_measure_may_be_a_metric_that_the_cells_were_asked_for():
    asked = {"ece": {"label": "calibration error", "form": "percent"}}
    cells = [
        Run("a", None, "done", {"seed": seed, "metrics": asked}, {"student": {"ece": 4.0 + seed}}) for seed in (0, 1)
    ]
    assert str(pages.summary(cells, "calibration error")) == "4.5 ± 0.7"
    assert pages.by_seed(cells, "calibration error") == {0: 4.0, 1: 5.0}


def test_intervals_are_drawn_for_every_group_from_top_to_bottom():
    groups = {"a": [cell(0, 90.0), cell(1, 80.0)], "b": [cell(0, 91.0)]}
    (axes,) = pages.intervals(groups, "student ID", "accuracy, %").axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["b", "a"]
    assert axes.get_xlabel() == "accuracy, % (mean, 95 % interval)"


def test_two_cells_of_a_seed_are_no_group():
    with pytest.raises(ValueError, match="several cells of one seed"):
        pages.by_seed([cell(0, 1.0), cell(0, 2.0)], "student ID")


def test_without_its_control_a_table_says_what_to_run():
    with pytest.raises(ValueError, match=r"no finished cell of 'none'.*run it first"):
        pages.compare({"mine": [cell(0, 1.0)]}, ["student ID"], "none", ["student ID"])


def command(name: str) -> str:
    """What makes the cells of a study, in its page and in the Makefile."""
    cells = write_study.STUDIES[name]
    return f"scripts/{cells}.py" if cells in write_study.CHAINS else f"-m ablation=study/{cells}"


@pytest.mark.parametrize("name", sorted(write_study.STUDIES))
def test_a_study_has_a_page_with_its_question_command_answer_and_limits(name):
    text = (DOCS / f"{name}.md").read_text()
    assert pages.BEGIN in text and pages.END in text
    assert command(name) in text
    for part in ("## Question", "## Measured", "## Answer", "## What it does not show", "## In the size of the papers"):
        assert part in text, part


def test_the_index_has_fifteen_questions_and_links_every_page():
    text = (DOCS / "README.md").read_text()
    assert re.findall(r"^\| (\d+) \|", text, re.M) == [str(number) for number in range(1, 16)]
    for name in write_study.STUDIES:
        assert f"({name}.md)" in text


def test_every_preset_is_that_of_a_page():
    assert {name.removesuffix("_paper") for name in PRESETS} == set(write_study.STUDIES.values()) - write_study.CHAINS


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_runs_a_study_and_writes_its_page():
    for name, cells in write_study.STUDIES.items():
        done = subprocess.run(["make", "-n", f"study-{name}"], cwd=ROOT, capture_output=True, text=True)
        assert command(name) in done.stdout and f"outputs/studies/{cells}" in done.stdout, done.stderr
        assert f"write_study.py {name}" in done.stdout


def test_a_study_runs_and_is_written_from_end_to_end(tmp_path, monkeypatch, capsys):
    """Four cells of two rounds: the shortest way through preset, report, statistics and page. The page stays the same
    when the machine with the run folders is gone."""
    words = ["ablation=study/halves", "experiment=matrix/backdoor", "seed=0", "synthesizer.rounds=2", *SMOKE]
    done = command_line("-m", *words, f"outputs={tmp_path}/halves")
    assert done.code == 0, done.err + done.out
    shutil.copy(DOCS / "halves.md", tmp_path)
    monkeypatch.setattr(pages.write, "__defaults__", (tmp_path,))
    monkeypatch.setattr(kept, "FOLDER", tmp_path / "kept")
    monkeypatch.setattr("sys.argv", ["write_study.py", "halves", "--outputs", str(tmp_path)])
    write_study.main()
    text = (tmp_path / "halves.md").read_text()
    assert "4 cells, 1 seeds" in text and (tmp_path / "halves.png").exists()
    for group in ("neither", "calibrated alone", "forgetting alone", "both"):
        assert f"| {group}" in text
    assert "interaction of the halves" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "halves")
    (tmp_path / "halves.md").write_text(f"{pages.BEGIN}\n{pages.END}\n")
    write_study.main()
    assert (tmp_path / "halves.md").read_text().strip() in text


def test_no_two_groups_of_a_figure_look_alike():
    looks = [(figures.colour(i), figures.marker(i)) for i in range(20)]
    assert len(set(looks)) == len(looks)
