"""A shared outputs folder with other people's permissions: what the system refuses is no damage, and is said first.

A superuser is refused nothing, so the refusals are put in the place of the system's functions.
"""

import builtins
import errno
import io
import os
import pathlib
import shutil
from pathlib import Path

import pytest

from dfkd.errors import Inaccessible
from dfkd.report.runs import find
from dfkd.run.run_cell import run_cell
from dfkd.stages import precision
from dfkd.store.files import file_lock, is_held
from dfkd.store.store import Store

KEY = "0123456789abcdef"


@pytest.fixture
def refuse(monkeypatch):
    """From here on the system refuses to read files and to look into folders, these and all below them."""

    def call(*paths: Path, number: int = errno.EACCES) -> None:
        for owner, name in ((io, "open"), (builtins, "open"), (os, "scandir"), (os, "stat"), (os, "access")):
            monkeypatch.setattr(owner, name, refusing(getattr(owner, name), paths, number))
        before = getattr(pathlib, "_NormalAccessor", None)  # of Python 3.10, which keeps these functions for itself
        for name in ("open", "scandir", "stat") if before else ():
            function = refusing(getattr(before, name), paths, number)
            monkeypatch.setattr(before, name, staticmethod(function))

    return call


def refusing(function, paths: tuple[Path, ...], number: int):
    def called(path=".", *args, **kwargs):
        where = [Path(os.fspath(path))] if isinstance(path, str | os.PathLike) else []
        # one may ask about a folder that one may not look into, but about nothing in it
        found = [w for w in where for p in paths if p in w.parents or (w == p and function.__name__ != "stat")]
        if not found:
            return function(path, *args, **kwargs)
        if function.__name__ == "access":
            return False
        raise OSError(number, os.strerror(number), str(found[0]))

    called.__name__ = function.__name__
    return called


def never(_: Path) -> dict:
    raise AssertionError("built although it was there")


@pytest.fixture
def artifact(tmp_path) -> Path:
    def build(folder: Path) -> dict:
        (folder / "weights").write_text("1 2 3")
        return {}

    return Store(tmp_path).fetch("pool", KEY, build).path


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE])
@pytest.mark.parametrize("name", [".", "meta.json", "weights"])
def test_an_artifact_that_cannot_be_read_is_neither_deleted_nor_made_again(tmp_path, artifact, refuse, name, number):
    refuse(artifact / name, number=number)
    for call in (
        lambda: Store(tmp_path).fetch("pool", KEY, never),
        lambda: Store(tmp_path).find("pool", KEY),
        lambda: Store(tmp_path).check_access("pool", KEY),
    ):
        with pytest.raises(Inaccessible, match=rf"{KEY}.* cannot be read \({os.strerror(number)}\).*outputs=DIR"):
            call()
    assert sorted(os.listdir(artifact)) == ["meta.json", "weights"]


def test_an_unreadable_artifact_is_told_before_anything_is_trained(outputs, cells, refuse):
    cell = cells[0]
    shutil.rmtree(outputs / "store" / "teacher")
    shutil.rmtree(cell.folder)
    (student,) = (path for path in (outputs / "store" / "student").iterdir() if path.is_dir())
    refuse(student / "student.safetensors")
    with pytest.raises(Inaccessible, match=r"student\.safetensors cannot be read"):
        run_cell(cell)
    assert not (outputs / "store" / "teacher").exists() and not (cell.folder / "status.json").exists()


@pytest.mark.parametrize("path", ["pool", f"pool/.{KEY}.lock", f"pool/.{KEY}.checkpoint"])
def test_what_could_not_be_made_is_told_before(tmp_path, refuse, path):
    (tmp_path / "pool").mkdir()
    for name in ("lock", "checkpoint"):
        (tmp_path / "pool" / f".{KEY}.{name}").touch()
    Store(tmp_path).check_access("pool", KEY)
    refuse(tmp_path / path)
    with pytest.raises(Inaccessible, match="cannot be"):
        Store(tmp_path).check_access("pool", KEY)


def test_a_whole_store_of_somebody_elses_is_used_without_writing(tmp_path, artifact, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    Store(tmp_path).check_access("pool", KEY)
    assert Store(tmp_path).fetch("pool", KEY, never).reused


def test_a_lock_that_cannot_be_opened_counts_as_held_and_is_named(tmp_path, refuse):
    lock = tmp_path / ".lock"
    lock.touch()
    refuse(lock)
    assert is_held(lock)
    with pytest.raises(Inaccessible, match=r"\.lock cannot be written \(Permission denied\)"), file_lock(lock, "it"):
        pass


def test_a_run_folder_that_cannot_be_read_ends_no_report_and_keeps_what_it_may_need(
    outputs, cells, refuse, reported, store
):
    hidden, other = cells
    refuse(hidden.folder)
    status, text = reported(outputs)
    assert status == {hidden.name: "unreadable", other.name: "done"} and "cannot be read (Permission denied)" in text
    with pytest.raises(Inaccessible):
        hidden.finished_result()
    code, said = store(outputs, "verify")
    assert code == 1 and f"UNREADABLE  {hidden.folder}" in said and "damaged" not in said
    assert store(outputs, "ls")[0] == 0
    for flags in ((), ("--unfinished",)):
        code, said = store(outputs, "gc", *flags)
        assert code == 0 and "all artifacts are kept" in said and "would delete 0 artifacts" in said


def test_without_a_look_into_runs_or_a_stage_nothing_is_called_unneeded(outputs, refuse, store):
    refuse(outputs / "runs")
    code, _ = store(outputs, "gc", "--yes")
    assert f"{outputs / 'runs'} cannot be read" in code
    assert all(any(path.iterdir()) for path in (outputs / "store").iterdir())


def test_a_stage_that_cannot_be_looked_into_is_named(outputs, refuse, store):
    refuse(outputs / "store" / "pool")
    for command in ("ls", "gc"):
        code, said = store(outputs, command)
        assert code == 0 and f"UNREADABLE  {outputs / 'store' / 'pool'}" in said
    code, said = store(outputs, "verify")
    assert code == 1 and "1 not readable, which is no damage" in said


def test_a_list_of_a_sweep_that_cannot_be_read_is_named_and_left_out(outputs, refuse, reported, caplog):
    refuse(outputs / "sweeps" / "list.jsonl")
    assert set(reported(outputs)[0].values()) == {"done"} and "list.jsonl cannot be read" in caplog.text
    with pytest.raises(Inaccessible):
        find([outputs / "sweeps" / "list.jsonl"])


def test_a_choice_of_precision_that_cannot_be_read_is_not_made_anew(tmp_path, refuse):
    """Another choice would be other numbers."""
    (tmp_path / "precision.json").write_text("[]")
    refuse(tmp_path / "precision.json")
    with pytest.raises(Inaccessible, match=r"precision\.json cannot be read"):
        precision.read(tmp_path / "precision.json")
