"""Digests: content counts, and is read no more often than it changes."""

import os
from pathlib import Path

import pytest

from dfkd.store import digest
from dfkd.store.digest import code_digest, file_digest, path_digest
from dfkd.store.keys import content_key

LONG_AGO = 1_500_000_000


@pytest.fixture
def reads(monkeypatch) -> list[Path]:
    """The files that are read."""
    seen: list[Path] = []
    monkeypatch.setattr(digest, "file_digest", lambda file: seen.append(file) or file_digest(file))
    return seen


def write(file: Path, text: str, when: int = LONG_AGO) -> str:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    for path in (file, file.parent, file.parent.parent):
        os.utime(path, (when, when))
    return str(file)


def test_a_path_counts_by_its_content_not_its_place(tmp_path):
    for name, text in (("a", "same"), ("b", "same"), ("c", "else")):
        (tmp_path / name).write_text(text)
    a, b, c = (content_key("teacher", 1, {"path": str(tmp_path / name)}) for name in "abc")
    assert a == b != c


def test_a_folder_counts_by_names_and_sizes(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "sub" / "file").write_text("12")
    assert path_digest(str(tmp_path / "a")) == path_digest(str(tmp_path / "b"))
    (tmp_path / "b" / "sub" / "file").write_text("123")
    assert path_digest(str(tmp_path / "a")) != path_digest(str(tmp_path / "b"))


def test_a_missing_path_is_no_error_here(tmp_path):
    assert path_digest(str(tmp_path / "none")) == f"missing:{tmp_path / 'none'}"


def test_a_file_is_read_once_until_it_changes(tmp_path, reads):
    path = write(tmp_path / "a" / "file", "one")
    first = path_digest(path)
    assert path_digest(path) == first and len(reads) == 1
    assert path_digest(write(tmp_path / "a" / "file", "two", LONG_AGO + 1)) != first and len(reads) == 2
    assert path_digest(write(tmp_path / "a" / "file", "three", LONG_AGO + 1)) != first and len(reads) == 3


def test_a_file_that_has_just_changed_is_read_again(tmp_path):
    (tmp_path / "file").write_text("one")  # two changes within a tick of the file system's clock look alike
    first = path_digest(str(tmp_path / "file"))
    when = (tmp_path / "file").stat().st_mtime_ns
    (tmp_path / "file").write_text("two")
    os.utime(tmp_path / "file", ns=(when, when))
    assert path_digest(str(tmp_path / "file")) != first


def test_a_folder_is_walked_once_until_something_is_added_or_removed_below(tmp_path, monkeypatch):
    write(tmp_path / "f" / "sub" / "one", "1")
    first = path_digest(str(tmp_path / "f"))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rglob", lambda *_: 1 / 0)
        assert path_digest(str(tmp_path / "f")) == first
    write(tmp_path / "f" / "sub" / "two", "2", LONG_AGO + 1)
    second = path_digest(str(tmp_path / "f"))
    assert second != first
    (tmp_path / "f" / "sub" / "two").unlink()
    assert path_digest(str(tmp_path / "f")) == first
    (tmp_path / "f" / "sub" / "one").unlink()
    (tmp_path / "f" / "sub").rmdir()
    assert path_digest(str(tmp_path / "f")) not in (first, second)


def test_the_program_is_told_by_the_modules_it_is_made_of(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own_method.py").write_text("a = 1\n")
    config = {"synthesizer": {"_target_": "own_method.Mine"}, "prior": [{"_target_": "dfkd.priors.L2"}]}
    before = code_digest(config)
    assert before == code_digest(config) != code_digest({})
    (tmp_path / "own_method.py").write_text("a = 2\n")
    assert code_digest(config) != before
