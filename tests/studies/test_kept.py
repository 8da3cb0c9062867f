"""The cells of a study that are kept in the repository: they join, replace each other, and make the same page."""

import copy
import importlib

import pytest
from continual import cell_of
from runner import a_few
from studies import boundary, kept
from test_every_page import PAGES, finished
from test_presets import cells

from dfkd.report.runs import Run


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "FOLDER", tmp_path / "kept")
    return tmp_path / "kept"


def made(name: str, *words: str) -> list[Run]:
    """The cells of a preset as a machine has them, with results that also hold what is not kept."""
    found = [finished(cell) for cell in cells(f"ablation=study/{name}", *words)]
    for run in found:
        run.result |= {"versions": {"torch": "2.9"}, "files": {"a.png": "sha256:0"}, "config": run.config}
        run.result["student"]["unknown"] = None
    return found


@pytest.mark.parametrize("name", a_few(PAGES, "parts", "halves", "transformers"))
def test_a_page_of_kept_cells_is_that_of_the_run_folders(name, tmp_path):
    found = made(name, "seed=0,1", f"outputs={tmp_path}/elsewhere")
    kept.save(name, found)
    page = importlib.import_module(f"studies.{name}").page
    assert page(kept.read(name)).text == page(found).text
    text = (kept.FOLDER / f"{name}.jsonl").read_text()
    assert str(tmp_path) not in text and len(text) < 2000 * len(found) + 20_000
    kept.save(name, kept.read(name))
    assert (kept.FOLDER / f"{name}.jsonl").read_text() == text


def test_later_seeds_join_the_earlier_ones_of_another_machine(tmp_path):
    kept.save("halves", made("halves", "seed=0,1", f"outputs={tmp_path}/a"))
    new = made("halves", "seed=2", f"outputs={tmp_path}/b")
    both = kept.joined(kept.read("halves"), new)
    assert [run.seed for run in both].count(2) == len(new) and len(both) == 3 * len(new)
    lines = importlib.import_module("studies.halves").page(both).text.splitlines()
    n = [line.split("|")[2].strip() for line in lines if line.startswith("| both")]
    assert n == ["3", "3", "3", "9"]  # in each scenario, and in all


def test_a_cell_that_is_measured_again_replaces_the_kept_one(tmp_path):
    kept.save("halves", made("halves", "seed=0,1", f"outputs={tmp_path}/a", "runtime.threads=2"))
    (again, *_) = made("halves", "seed=1", f"outputs={tmp_path}/b")
    again.result["student"]["iacc"] = 1.5
    again.result["precision"] = "float32"  # asked for as `auto`
    again.config["runtime"]["precision"] = "auto"
    before = kept.read("halves")
    for run in before:
        run.config["runtime"]["precision"] = "float32"
    both = kept.joined(before, [again])
    assert len(both) == len(before) and again in both
    assert [run.result["student"]["iacc"] for run in both].count(1.5) == 1


def test_a_cell_that_failed_is_kept_with_its_reason_until_it_finishes(tmp_path):
    done, *rest = made("halves", "seed=0", f"outputs={tmp_path}")
    failed = Run(done.name, tmp_path, "failed", done.config, reason="loss term 'kd' is not finite")
    kept.save("halves", [failed, *rest])
    known = kept.read("halves")
    assert [(run.status, run.reason) for run in known if not run.done] == [("failed", failed.reason)]
    both = kept.joined(known, [done])
    assert len(both) == len(known) and all(run.done for run in both)


def test_chains_of_two_machines_are_the_same_cells_although_their_files_lie_elsewhere(tmp_path):
    def chain(where):
        for task in range(5):
            files = [f"teacher.memory_path={tmp_path}/{where}/samples.safetensors"] if task else []
            config = cell_of("dfq", "digits", task, 0, tmp_path / where, files).config
            yield Run(f"{where}_{task}", None, "done", config, {"teacher": {"task_0": 1.0}})

    kept.save("continual", chain("a"))
    text = (kept.FOLDER / "continual.jsonl").read_text()
    assert str(tmp_path) not in text and '"memory_path": "samples.safetensors"' in text
    both = kept.joined(kept.read("continual"), chain("b"))
    assert [run.name for run in both] == [f"b_{task}" for task in range(5)]


def test_what_is_derived_from_files_is_kept_with_its_cell(tmp_path):
    (run, *_) = made("halves", "seed=0", f"outputs={tmp_path}")
    run.folder = tmp_path
    again, changed = copy.deepcopy(run), copy.deepcopy(run)
    assert kept.derived(run, "one", lambda run: {"covered": 7}) == {"covered": 7}
    kept.save("halves", [run])
    (known,) = kept.read("halves")
    assert kept.derived(known, "one", lambda run: pytest.fail("it is known")) == {"covered": 7}
    with pytest.raises(ValueError, match=r"'two' of .* was not kept"):
        kept.derived(known, "two", lambda run: 1)
    (joined,) = kept.joined([known], [again])
    assert joined.folder and joined.result["derived"]["one"] == {"covered": 7}
    changed.result["student"]["iacc"] += 1
    (joined,) = kept.joined([known], [changed])
    assert kept.derived(joined, "one", lambda run: {"covered": 8}) == {"covered": 8}


def test_where_points_lie_is_shown_without_their_files(tmp_path):
    """A cell of study 1 on a machine that has no store."""
    (run, *_) = made("boundary", "seed=0", f"outputs={tmp_path}")
    run.result |= {"pool_labels": [100, 100], "derived": {"boundary": {"covered": 3, "distance": 0.5, "near": 9}}}
    page = boundary.page([run])
    assert page.figure is None and "0.50" in page.text
