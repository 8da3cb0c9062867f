"""`python -m dfkd.store`: lists, tells, verifies and tidies a store. No torch in here."""

import json
import os
import shutil
import subprocess
import sys
import time

import pytest
from runner import process_environment

from dfkd.cli.inventory import take_inventory
from dfkd.cli.store import duration, main
from dfkd.store.digest import file_digest
from dfkd.store.files import file_lock
from dfkd.store.record import with_digest
from dfkd.store.run_folder import RunFolder
from dfkd.store.store import Store

TEACHER, POOL, SPLIT = "0" * 16, "1" * 15 + "a", "1" * 15 + "b"
OFFLINE, ONLINE, OTHER = "2" * 16, "3" * 16, "4" * 16
FINISHED = {"teacher": TEACHER, "pool": POOL, "split": SPLIT, "student": OFFLINE}
UNFINISHED = {"teacher": TEACHER, "student": ONLINE}


def artifact(outputs, stage, key, **inputs):
    def build(folder):
        (folder / "weights").write_text(key)
        return {"seconds": 75.0, "peak_memory_mb": 12.0}

    return Store(outputs / "store").fetch(stage, key, build, {"seed": 3}, inputs).path


def run_folder(outputs, name, stages=None, result=None):
    folder = outputs / "runs" / name
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("seed: 0\n")
    if stages:
        (folder / "stages.json").write_text(json.dumps(stages))
    if result:
        (folder / "student.safetensors").write_text("student")
        about = {"hash": name[-8:], "student_digest": file_digest(folder / "student.safetensors")}
        about["stages"] = {stage: {"key": key, "reused": False} for stage, key in result.items()}
        RunFolder(folder).write_result({"config": {}, "teacher": {}} | about)
    return folder


@pytest.fixture
def outputs(tmp_path):
    """A finished offline cell, an unfinished online one, and a student that nobody needs."""
    artifact(tmp_path, "teacher", TEACHER)
    artifact(tmp_path, "pool", POOL, teacher=TEACHER)
    artifact(tmp_path, "split", SPLIT, pool=POOL)
    artifact(tmp_path, "student", OFFLINE, pool=POOL, split=SPLIT)
    artifact(tmp_path, "student", ONLINE, teacher=TEACHER)
    artifact(tmp_path, "student", OTHER, teacher=TEACHER)
    run_folder(tmp_path, "offline_s0-aaaaaaaa", FINISHED, FINISHED)
    run_folder(tmp_path, "online_s0-bbbbbbbb", UNFINISHED)
    return tmp_path


@pytest.fixture
def store(monkeypatch, capsys, outputs):
    """Call the command; gives exit code and what was printed."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["store", *arguments, "--outputs", str(outputs)])
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        return end.value.code, said.out + said.err + (end.value.code if isinstance(end.value.code, str) else "")

    return call


def there(outputs) -> set[str]:
    return {path.parent.name for path in (outputs / "store").glob("*/*/meta.json")}


def hidden(outputs) -> set[str]:
    return {path.name for path in (outputs / "store").glob("*/.*")}


def row(text: str, key: str) -> str:
    (line,) = (line for line in text.splitlines() if key in line)
    return line


def test_ls_lists_artifacts_with_their_cells_and_what_feeds_them(store):
    code, said = store("ls")
    assert code == 0
    assert "aaaaaaaa bbbbbbbb*" in row(said, TEACHER) and "75 s" in row(said, TEACHER)  # * not finished
    assert row(said, OFFLINE).endswith("pool 11111111, split 11111111") and " aaaaaaaa " in row(said, OFFLINE)
    assert row(said, OTHER).split()[-3:] == ["-", "teacher", "00000000"]
    assert "1 teacher, 1 pool, 1 split, 3 students: " in said and "1 finished, 1 unfinished" in said


def test_ls_counts_cells_that_do_not_fit_and_names_damage(store, outputs):
    for i in range(4):
        run_folder(outputs, f"more_s{i}-{i:08}", FINISHED, FINISHED)
    (outputs / "store" / "student" / OTHER / "meta.json").write_text("{")
    said = store("ls")[1]
    assert "+2" in row(said, OFFLINE) and "damaged" in row(said, OTHER)


def test_ls_shows_unfinished_work_of_builders_at_work_and_gone(store, outputs):
    stage = outputs / "store" / "student"
    (stage / f".{'5' * 16}.checkpoint.safetensors").write_text("half")
    (stage / f".{'6' * 16}.77.tmp").mkdir()
    with file_lock(stage / f".{'6' * 16}.lock", "it"):
        said = store("ls")[1]
    assert "checkpoint, of a builder that is gone" in row(said, "5" * 16) and " 4 B " in row(said, "5" * 16)
    assert "temporary, being made" in row(said, "6" * 16)


def test_show_tells_what_an_artifact_was_made_of_and_who_refers_to_it(store, outputs):
    code, said = store("show", "22")
    assert code == 0 and str(outputs / "store" / "student" / OFFLINE) in said
    assert "seed: 3" in said and "75 s" in said and "12 MB" in said and "weights 16 B" in said
    for line in (f"pool {POOL}", f"split {SPLIT}", f"teacher {TEACHER}"):  # a teacher feeds by way of a pool
        assert line in said
    assert str(outputs / "runs" / "offline_s0-aaaaaaaa") in said
    said = store("show", TEACHER)[1]
    assert f"feeds    pool {POOL}" in said and f"student {ONLINE}" in said and "bbbbbbbb (unfinished)" in said


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("111111", ["'111111' begins 2 keys", f"pool {POOL}", f"split {SPLIT}"]),
        ("1" * 15 + "c", ["no key begins with", "the nearest is pool"]),
        ("344", ["no key begins with '344'", f"the nearest is student {ONLINE}"]),
    ],
)
def test_a_key_that_is_none_or_several_is_answered_with_the_nearest(store, key, words):
    code, said = store("show", key)
    assert code != 0 and all(word in said for word in words)


def test_show_of_a_damaged_or_older_artifact(store, outputs):
    meta = outputs / "store" / "student" / OTHER / "meta.json"
    record = json.loads(meta.read_text())
    del record["inputs"]
    meta.write_text(json.dumps(with_digest(record)))
    assert "made before dfkd noted it" in store("show", OTHER)[1]
    meta.write_text("")
    code, said = store("show", OTHER)
    assert code == 1 and "damaged" in said


def test_verify_says_that_all_is_whole(store):
    code, said = store("verify")
    assert code == 0 and "6 artifacts and 1 finished run folder: all are whole" in said


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (f"store/pool/{POOL}/weights", "weights has changed"),
        (f"store/pool/{POOL}/meta.json", "meta.json cannot be read"),
        ("runs/offline_s0-aaaaaaaa/student.safetensors", "student.safetensors has changed"),
        ("runs/offline_s0-aaaaaaaa/config.yaml", "config.yaml has changed"),
        ("runs/offline_s0-aaaaaaaa/result.json", "result.json cannot be read"),
    ],
)
def test_verify_names_what_has_changed(store, outputs, path, words):
    (outputs / path).write_text("{")
    code, said = store("verify")
    assert code == 1 and f"DAMAGED  {(outputs / path).parent}: " in said and words in said and "1 damaged" in said


@pytest.mark.parametrize("name", ["weights", "meta.json"])
def test_verify_names_what_is_missing(store, outputs, name):
    (outputs / "store" / "split" / SPLIT / name).unlink()
    code, said = store("verify")
    assert code == 1 and f"{SPLIT}: {name} is missing" in said


def test_gc_lists_what_no_cell_needs_and_deletes_it_only_when_asked_to(store, outputs):
    before = there(outputs), hidden(outputs)
    code, said = store("gc")
    assert code == 0 and OTHER in said and "would delete 1 artifact, 0 leftovers, 6 lock files: " in said
    assert ONLINE not in said and (there(outputs), hidden(outputs)) == before
    code, said = store("gc", "--yes")
    assert code == 0 and "deleted 1 artifact" in said
    assert there(outputs) == {TEACHER, POOL, SPLIT, OFFLINE, ONLINE} and hidden(outputs) == set()
    assert "would delete 0 artifacts" in store("gc")[1] and store("verify")[0] == 0


def test_gc_unfinished_keeps_what_a_finished_or_a_running_cell_needs(store, outputs):
    with file_lock(outputs / "runs" / "online_s0-bbbbbbbb" / ".lock", "cell"):
        assert [run.state for run in take_inventory(outputs).runs] == ["finished", "running"]
        store("gc", "--yes", "--unfinished")
        assert ONLINE in there(outputs) and OTHER not in there(outputs)
    store("gc", "--yes", "--unfinished")
    assert there(outputs) == {TEACHER, POOL, SPLIT, OFFLINE}


def test_gc_leaves_builders_at_work_alone(store, outputs):
    stage = outputs / "store" / "student"
    (stage / f".{'5' * 16}.77.tmp").mkdir()
    with file_lock(stage / f".{'5' * 16}.lock", "it"), file_lock(stage / f".{OTHER}.lock", "another"):
        code, said = store("gc", "--yes", "--unfinished")
        assert code == 0 and "a process has just begun to use it" in said and OTHER in there(outputs)
        assert f".{'5' * 16}.77.tmp" in hidden(outputs) and f".{'5' * 16}.lock" in hidden(outputs)
    store("gc", "--yes")
    assert OTHER not in there(outputs) and hidden(outputs) == set()  # the builders are gone by now


def test_gc_keeps_a_checkpoint_until_the_artifact_is_there(store, outputs):
    stage = outputs / "store" / "student"
    for key in (OFFLINE, "5" * 16):
        (stage / f".{key}.checkpoint.json").write_text("half")
    (stage / f".{'5' * 16}.checkpoint").mkdir()
    store("gc", "--yes")
    assert hidden(outputs) == {f".{'5' * 16}.checkpoint.json", f".{'5' * 16}.checkpoint"}
    store("gc", "--yes", "--unfinished")
    assert hidden(outputs) == set() and OFFLINE in there(outputs)


def test_gc_keeps_all_where_an_unfinished_cell_does_not_say_what_it_needs(store, outputs):
    folder = run_folder(outputs, "older_s0-cccccccc")
    code, said = store("gc", "--yes")
    assert code == 0 and OTHER in there(outputs) and str(folder) in said and "--unfinished" in said
    store("gc", "--yes", "--unfinished")
    assert OTHER not in there(outputs)


def test_gc_keeps_what_a_finished_cell_needs_though_it_is_damaged(store, outputs):
    (outputs / "store" / "pool" / POOL / "meta.json").write_text("")
    store("gc", "--yes", "--unfinished")
    assert (outputs / "store" / "pool" / POOL / "weights").exists()


def test_an_empty_folder_that_only_holds_a_lock_is_no_cell(outputs):
    (outputs / "runs" / "refused_s0-dddddddd").mkdir()
    (outputs / "runs" / "refused_s0-dddddddd" / ".lock").touch()
    assert len(take_inventory(outputs).runs) == 2


def test_another_folder_than_that_of_the_runs_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["store", "ls", "--outputs", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"there is no store in .*--outputs DIR"):
        main()


def test_the_module_runs_without_torch_from_where_the_runs_are(outputs):
    os.rename(outputs / "runs", outputs / "r")
    (outputs / "outputs").mkdir()
    os.rename(outputs / "r", outputs / "outputs" / "runs")
    os.rename(outputs / "store", outputs / "outputs" / "store")
    code = "import sys; sys.modules['torch'] = None; import runpy; runpy.run_module('dfkd.store', run_name='__main__')"
    command = [sys.executable, "-W", "error", "-c", code, "ls"]
    done = subprocess.run(command, cwd=outputs, env=process_environment(), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") and OFFLINE in done.stdout


def gone() -> int:
    """The number of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return process.pid


WRITTEN = ("runs/online_s0-bbbbbbbb/.result.json.{}.tmp", "sweeps/.list.jsonl.{}.tmp", ".precision.json.{}.tmp",
           "reports/0123/.table.md.{}.tmp", f"store/student/.{OTHER}.checkpoint.{{}}.tmp")  # fmt: skip


@pytest.fixture
def written(outputs):
    """Leave temporary files of a process, as old as that."""

    def make(process: int, age: float = 60.0) -> list:
        files = [outputs / name.format(process) for name in WRITTEN]
        for file in files:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("half")
            os.utime(file, (time.time() - age,) * 2)
        return files

    return make


@pytest.mark.parametrize("command", [("verify",), ("gc", "--yes")])
def test_what_killed_processes_were_writing_is_swept_up(store, outputs, written, command):
    files = written(gone())
    (outputs / "store" / "student" / f".{'6' * 16}.77.tmp").mkdir()
    (outputs / "runs" / "notes.tmp").write_text("mine")
    assert "temporary, of a process that is gone" in row(store("ls")[1], ".list.jsonl.")
    code, said = store(*command)
    assert code == 0 and ("swept up 6 temporary files" in said or "6 leftovers" in said)
    assert not any(file.exists() for file in files) and not list(outputs.rglob(".*.tmp"))
    assert (outputs / "runs" / "notes.tmp").exists()


def test_what_is_being_written_stays(store, outputs, written):
    files = written(os.getpid())[:-1]
    files += written(gone(), age=0.0)[1:-1]  # the process may be on another machine
    with file_lock(outputs / "runs" / "online_s0-bbbbbbbb" / ".lock", "cell"):
        files += written(gone())[:1]
        store("verify")
        store("gc", "--yes")
        assert all(file.exists() for file in files)


def test_a_number_that_is_a_later_processs_does_not_keep_a_file_for_ever(store, written):
    files = written(os.getpid(), age=4000.0)
    store("verify")
    assert not any(file.exists() for file in files)


def test_what_is_not_ours_in_a_store_is_no_artifact(store, outputs):
    (outputs / "store" / "student" / "my notes").mkdir()
    (outputs / "store" / "student" / "my notes" / "x").touch()
    assert "my notes" not in store("gc", "--yes")[1]
    assert (outputs / "store" / "student" / "my notes" / "x").exists()


def test_runs_of_names_that_had_slashes_are_found(store, outputs):
    folder = run_folder(outputs, "none-digits_my/defense_s0-dddddddd", {"student": OTHER}, {"student": OTHER})
    assert "2 finished" in store("ls")[1]
    store("gc", "--yes")
    assert OTHER in there(outputs)
    (folder / "student.safetensors").write_text("{")
    assert f"DAMAGED  {folder}" in store("verify")[1]


HALF = f'{{"teacher": "{TEACHER}", "student": '


@pytest.mark.parametrize("text", ['{"teacher": 3}', '["teacher"]', HALF, HALF + '"x"}', HALF + "null}", "", "\x00"])
def test_gc_keeps_all_where_what_a_cell_needs_is_damaged(store, outputs, text):
    (outputs / "runs" / "online_s0-bbbbbbbb" / "stages.json").write_text(text)
    code, said = store("gc", "--yes")
    assert code == 0 and OTHER in there(outputs) and "1 run folder may need them that cannot say which" in said


def test_gc_unfinished_keeps_what_a_damaged_cell_needs(store, outputs):
    (outputs / "runs" / "offline_s0-aaaaaaaa" / "result.json").write_text("")
    store("gc", "--yes", "--unfinished")
    assert there(outputs) == {TEACHER, POOL, SPLIT, OFFLINE}


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_file_in_the_place_of_an_artifact_is_named_and_made_again(store, outputs, kind):
    path = outputs / "store" / "split" / SPLIT
    shutil.rmtree(path)
    path.write_text("x") if kind == "file" else path.symlink_to("nowhere")
    code, said = store("verify")
    assert code == 1 and f"DAMAGED  {path}: " in said
    assert artifact(outputs, "split", SPLIT, pool=POOL) == path and store("verify")[0] == 0


def test_durations_are_one_number_with_its_unit():
    times = (0.04, 9, 75, 150, 7300, 200_000)
    assert [duration(t) for t in times] == ["0.0 s", "9.0 s", "75 s", "2 min", "2 h", "2 d"]
