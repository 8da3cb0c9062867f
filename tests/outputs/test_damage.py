"""Every file under outputs/ damaged in every way: never a traceback, never used without a word, made again by the same
command. What the system does not let us read is no damage."""

import json
import os
import shutil
from argparse import Namespace
from pathlib import Path

import pytest
from runner import read_json

from dfkd.cli.inventory import take_inventory
from dfkd.cli.store import gc, ls, verify
from dfkd.errors import ConfigError, Damaged
from dfkd.main import before
from dfkd.report.content import Question, answer
from dfkd.report.page import page
from dfkd.report.runs import find
from dfkd.run.run_cell import run_cell
from dfkd.store.run_folder import RunFolder
from dfkd.store.store import Store, read_record
from dfkd.sweeps import ledger
from dfkd.sweeps.progress import Progress

EXHAUSTIVE = pytest.mark.exhaustive
RUN = ("config.yaml", "stages.json", "metrics.jsonl", "result.json", "student.safetensors", "student.json",
       "student_best_on_validation.safetensors", "student_best_on_validation.json", "curves.png",
       "samples_all.png", "samples_fragile.png")  # fmt: skip
JUDGED_RUN = RUN[:4]
ARTIFACT = {
    "teacher": ("meta.json", "metrics.jsonl", "teacher.safetensors", "teacher.json"),
    "judgement": ("meta.json",),  # their metrics are empty
    "premise": ("meta.json",),
    "pool": ("meta.json", "metrics.jsonl", "pool.safetensors"),
    "split": ("meta.json", "split.safetensors"),
    "student": ("meta.json", "metrics.jsonl", "samples.safetensors", "student.json", "student.safetensors"),
}


def write(content: bytes):
    def damage(file: Path) -> None:
        file.unlink()
        file.write_bytes(content)

    return damage


def cut(file: Path) -> None:
    content = file.read_bytes()
    write(content[: len(content) // 2])(file)


def alter(file: Path) -> None:
    """One digit is another, or one byte: what no reader of the file would notice."""
    content = bytearray(file.read_bytes())
    place = next((i for i, byte in enumerate(content) if 0x30 < byte < 0x39), len(content) - 1)
    content[place] ^= 1
    write(bytes(content))(file)


def to_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()
    (file / "inside").write_text("x")


def copy_of_another(file: Path) -> None:
    """A whole JSON object of a run, but not this one."""
    write(b'{"hash": "00000000", "config": {}, "teacher": {}, "stages": {"teacher": {"key": 3}}}')(file)


KINDS = {
    "cut": cut,
    "empty": write(b""),
    "binary": write(bytes(range(256))),
    "list": write(b"[1, 2]\n"),
    "number": write(b"3\n"),
    "object": write(b'{"a": {"b": null}}\n'),
    "deep": write(b"[" * 1_000),
    "another": copy_of_another,
    "altered": alter,
    "folder": to_folder,
    "missing": Path.unlink,
}


def test_the_lists_above_are_all_files(made, made_cells):
    for cell, names in zip(made_cells, (RUN, JUDGED_RUN), strict=True):
        there = {path.name for path in cell.folder.iterdir()} - {".lock", "status.json"}
        assert there == set(names)
        assert set(read_json(cell.folder / "result.json")["files"]) == there - {"result.json"}
    for stage, names in ARTIFACT.items():
        for folder in (path for path in (made / "store" / stage).iterdir() if path.is_dir()):
            assert {path.name for path in folder.iterdir()} >= set(names)


def cases(files: list[tuple], in_every_way: list[tuple]) -> list:
    """Every file in every way; those that are read alike in two ways, and in the others only by `-m slow`."""
    return [
        pytest.param(*file, kind, marks=[] if file in in_every_way or kind in ("altered", "missing") else EXHAUSTIVE)
        for file in files
        for kind in KINDS
    ]


def looked_at(outputs: Path, said: pytest.CaptureFixture) -> str:
    """What `python -m dfkd.store` says by all its commands; `gc` would delete nothing."""
    found, arguments = take_inventory(outputs), Namespace(yes=False, unfinished=True)
    assert ls(found, arguments) == gc(found, arguments) == 0
    assert verify(found, arguments) == 1
    text = said.readouterr().out
    assert "would delete 0 artifacts" in text and "1 damaged" in text
    return text


RUNS = [(0, name) for name in RUN] + [(1, name) for name in JUDGED_RUN]


@pytest.mark.parametrize(("which", "name", "kind"), cases(RUNS, RUNS[:4]))
def test_a_damaged_run_folder_is_named_by_all_and_used_by_none(outputs, cells, capsys, reported, which, name, kind):
    cell, other = cells[which], cells[1 - which]
    KINDS[kind](cell.folder / name)
    assert cell.finished_result() is None and other.finished_result() is not None
    said = before(cell, None)
    assert "was finished before, but" in said and name in said
    status, text = reported(outputs)
    assert status == {cell.name: "damaged", other.name: "done"} and f"DAMAGED: {cell.name}: {name} " in text
    assert f"DAMAGED  {cell.folder}: {name} " in looked_at(outputs, capsys)


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_status_costs_nothing(outputs, cells, store, kind, reported):
    cell = cells[0]
    KINDS[kind](cell.folder / "status.json")
    assert (
        cell.finished_result() and set(reported(outputs)[0].values()) == {"done"} and store(outputs, "verify")[0] == 0
    )


ARTIFACTS = [(stage, name) for stage, names in ARTIFACT.items() for name in names]


@pytest.mark.parametrize(("stage", "name", "kind"), cases(ARTIFACTS, ARTIFACTS[:1]))
def test_a_damaged_artifact_is_named_by_all_and_used_by_none(outputs, capsys, reported, stage, name, kind):
    folder = next(path for path in sorted((outputs / "store" / stage).iterdir()) if path.is_dir())
    KINDS[kind](folder / name)
    with pytest.raises(Damaged, match=name):
        read_record(folder)
    assert Store(outputs / "store").find(stage, folder.name) is None
    assert f"DAMAGED  {folder}: {name} " in looked_at(outputs, capsys)


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_list_of_a_sweep_ends_neither_the_sweep_nor_a_report(outputs, monkeypatch, kind, reported):
    file = outputs / "sweeps" / "list.jsonl"
    KINDS[kind](file)
    assert set(reported(outputs)[0].values()) == {"done"}
    monkeypatch.setenv(ledger.LIST, str(file))
    progress = Progress()
    progress.began = 0.0
    progress.show()
    if kind not in ("folder", "missing"):
        ledger.append({"number": 5, "status": "waiting"})
        assert ledger.last_rows()[-1]["number"] == 5  # whatever stands before it


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("cut", "altered", "empty", "missing")])
def test_what_is_no_list_of_a_sweep_is_named_and_others_are_read(outputs, kind, caplog):
    good, bad = outputs / "sweeps" / "list.jsonl", outputs / "sweeps" / "bad.jsonl"
    shutil.copyfile(good, bad)
    KINDS[kind](bad)
    with pytest.raises(ConfigError, match=r"bad\.jsonl"):
        find([bad])
    assert len(find([bad, good])) == 2 and "bad.jsonl" in caplog.text


@pytest.mark.parametrize("folder", ["\ud800", "x" * 5000, "a\0b", "runs/" + "x" * 256])
def test_a_folder_that_cannot_be_one_costs_its_line(outputs, caplog, folder):
    file = outputs / "sweeps" / "list.jsonl"
    row = json.dumps({"number": 9, "folder": folder, "arguments": [], "status": "done"})
    write(f"{file.read_text()}{row}\n".encode())(file)
    assert len(find([file])) == 2 and f"{file}: line 3 is skipped" in caplog.text


def test_half_a_line_costs_that_line_and_is_named_once(outputs, caplog):
    file = outputs / "sweeps" / "list.jsonl"
    first, second = file.read_text().splitlines(keepends=True)
    write((first[:20] + "\n" + second).encode())(file)
    assert [run.name for run in find([file])] == [Path(json.loads(second)["folder"]).name]
    find([file])
    assert caplog.text.count(f"{file}: line 1 is skipped") == 1


def test_pictures_and_curves_of_a_damaged_cell_are_not_on_the_page(outputs, cells):
    cell = cells[0]
    for name in ("samples_all.png", "metrics.jsonl"):
        cut(cell.folder / name)
    text = page(answer(find([outputs]), Question()), outputs)
    assert "<img" not in text and 'class="curves"' not in text and "samples_all.png has changed" not in text
    assert "metrics.jsonl has changed" in text


@pytest.mark.parametrize(
    "damage",
    [
        {"student.json": "altered", "stages.json": "missing", "samples_all.png": "missing"},
        {"result.json": "folder", "metrics.jsonl": "folder", "student.safetensors": "folder", "config.yaml": "cut"},
    ],
)
def test_the_same_command_makes_a_run_folder_again(cells, damage):
    cell = cells[0]
    known = read_json(cell.folder / "result.json")
    for name, kind in damage.items():
        KINDS[kind](cell.folder / name)
    result = run_cell(cell)
    assert all(stage["reused"] for stage in result["stages"].values()) and result["student"] == known["student"]
    assert cell.finished_result() == result and RunFolder(cell.folder).damage() is None
    students = [name for name in RUN if name.startswith("student")]
    assert [result["files"][name] for name in students] == [known["files"][name] for name in students]
    for name in damage:  # what stood in the place of a file is nobody's to delete
        assert damage[name] != "folder" or (cell.folder / f"{name}.folder" / "inside").exists()


def test_the_best_student_of_another_cell_is_not_taken_for_this_ones(outputs, cells):
    cell = cells[0]
    shutil.copyfile(next((outputs / "store").glob("teacher/*/teacher.safetensors")), outputs / "x")
    os.replace(outputs / "x", cell.folder / "student_best_on_validation.safetensors")
    assert RunFolder(cell.folder).damage() == "student_best_on_validation.safetensors has changed"


def test_a_run_folder_under_the_name_of_another_is_not_taken_for_it(cells):
    cell = cells[0]
    moved = cell.folder.rename(cell.folder.with_name(f"{cell.name[:-8]}01234567"))
    assert RunFolder(moved).damage() == "result.json is that of another cell"


def test_a_result_of_before_there_were_checksums_is_taken_and_told_of(outputs, cells, store, reported):
    cell = cells[0]
    old = {k: v for k, v in read_json(cell.folder / "result.json").items() if k not in ("files", "digest")}
    write(json.dumps(old).encode())(cell.folder / "result.json")
    assert cell.finished_result() == old and before(cell, old).endswith("it cannot be checked)")
    assert "1 of the cells are of an older dfkd that kept no checksums" in reported(outputs)[1]
    code, said = store(outputs, "verify")
    assert code == 0 and "1 run folder of an older dfkd kept no checksums and cannot be checked" in said
    cut(cell.folder / "student.safetensors")  # of which there was one
    assert cell.finished_result() is None and store(outputs, "verify")[0] == 1


def test_what_an_earlier_run_left_is_not_vouched_for(tmp_path):
    files = RunFolder(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    files.begin({}, {})
    (tmp_path / "student.json").write_text("{}")
    result = files.write_result({"config": {}, "teacher": {}})
    assert set(result["files"]) == {"config.yaml", "stages.json", "student.json"}
