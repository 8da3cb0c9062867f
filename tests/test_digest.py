"""Digests: bytes count, and are read no more often than they change."""

import json
import logging
import os
from pathlib import Path

import pytest

from dfkd.store import digest
from dfkd.store.digest import CACHE_FILE, Digests, file_digest


@pytest.fixture
def reads(monkeypatch) -> list[Path]:
    """The files that are read."""
    seen: list[Path] = []
    monkeypatch.setattr(digest, "file_digest", lambda file, *a: seen.append(file) or file_digest(file, *a))
    return seen


@pytest.fixture
def settled(monkeypatch):
    """Files count as old as soon as they are written."""
    monkeypatch.setattr(digest, "RECENT", -1)


@pytest.fixture
def known(tmp_path):
    """What a new process knows: digests with the memory that earlier ones have left."""
    (tmp_path / "outputs").mkdir()
    return lambda: Digests(tmp_path / "outputs" / CACHE_FILE)


def write(file: Path, text: str) -> str:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return str(file)


def rewrite(file: Path, text: str) -> None:
    """Other bytes of the same size in the same inode, with the time stamp of the old ones."""
    stat = now = file.stat()
    while now.st_ctime_ns == stat.st_ctime_ns:  # the clock of a file system has steps of milliseconds
        with file.open("r+") as stream:
            stream.write(text)
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        now = file.stat()
    assert (now.st_size, now.st_ino, now.st_mtime_ns) == (stat.st_size, stat.st_ino, stat.st_mtime_ns)


def test_a_file_counts_by_its_bytes_not_its_place(tmp_path, known):
    a, b, c = (known().of(write(tmp_path / name, text)) for name, text in (("a", "same"), ("b", "same"), ("c", "else")))
    assert a == b == file_digest(tmp_path / "a") != c


@pytest.fixture
def pictures(tmp_path) -> Path:
    """A folder of two classes."""
    for name in ("cat/1", "cat/2", "dog/1"):
        write(tmp_path / "pictures" / "train" / name, name)
    return tmp_path / "pictures"


def noise(folder: Path) -> None:
    rewrite(folder / "train" / "cat" / "1", "noise")


def swap(folder: Path) -> None:
    train = folder / "train"
    for old, new in (("cat", "x"), ("dog", "cat"), ("x", "dog")):
        (train / old).rename(train / new)


def link(folder: Path) -> None:
    (folder.parent / "elsewhere").mkdir()
    write(folder.parent / "elsewhere" / "3", "linked")
    (folder / "train" / "cow").symlink_to(folder.parent / "elsewhere")


@pytest.mark.parametrize(
    "change",
    [
        noise,
        swap,
        link,
        lambda folder: write(folder / "train" / "dog" / "2", "new"),
        lambda folder: (folder / "train" / "dog" / "1").unlink(),
        lambda folder: (folder / "train" / "dog" / "1").rename(folder / "train" / "dog" / "9"),
        lambda folder: (folder / "train" / "empty").mkdir(),
    ],
    ids=["same size", "swapped classes", "linked class", "added", "removed", "renamed", "class without files"],
)
def test_a_folder_counts_by_the_names_and_bytes_of_its_files(pictures, known, settled, change):
    before = known().of(str(pictures))
    assert known().of(str(pictures)) == before and before.startswith("folder:")
    change(pictures)
    assert known().of(str(pictures)) != before


def test_a_folder_is_the_same_elsewhere_and_with_what_a_desktop_adds(pictures, known):
    before = known().of(str(pictures))
    write(pictures / "train" / ".DS_Store", "clutter")
    assert known().of(str(pictures)) == before
    assert known().of(str(pictures.rename(pictures.with_name("moved")))) == before


def test_a_folder_that_links_to_itself_and_to_nothing_is_walked_once(pictures, known):
    (pictures / "train" / "again").symlink_to(pictures)
    (pictures / "train" / "gone").symlink_to("nowhere")
    os.mkfifo(pictures / "train" / "pipe")
    assert known().of(str(pictures)).startswith("folder:")


def test_a_missing_path_is_no_error_here(tmp_path, known):
    assert known().of(str(tmp_path / "none")) == f"missing:{tmp_path / 'none'}"


def test_what_may_not_be_read_is_no_error_here_and_not_remembered(pictures, known, settled, monkeypatch):
    def refuse(file, *_):
        raise PermissionError(13, "Permission denied", str(file))

    with monkeypatch.context() as patch:
        patch.setattr(digest, "file_digest", refuse)
        assert known().of(str(pictures / "train" / "cat" / "1")) == "unreadable:Permission denied"
        closed = known().of(str(pictures))
    assert known().of(str(pictures)) != closed


def test_a_second_start_reads_nothing(pictures, known, settled, reads):
    before = known().of(str(pictures))
    assert len(reads) == 3
    assert known().of(str(pictures)) == before and len(reads) == 3


def test_touching_costs_one_reading(pictures, known, settled, reads):
    before = known().of(str(pictures))
    os.utime(pictures / "train" / "cat" / "1", (1, 1))
    assert known().of(str(pictures)) == before and len(reads) == 4
    assert known().of(str(pictures)) == before and len(reads) == 4


def test_one_file_of_a_folder_that_has_changed_is_read_alone(pictures, known, settled, reads):
    known().of(str(pictures))
    noise(pictures)
    known().of(str(pictures))
    assert reads[3:] == [pictures / "train" / "cat" / "1"]


def test_a_file_that_has_just_changed_is_not_relied_on(tmp_path, known, reads):
    path = write(tmp_path / "file", "one")  # two changes within a tick of the file system's clock look alike
    for count in (1, 2):
        known().of(path)
        assert len(reads) == count


def test_a_file_that_changes_while_it_is_read_is_not_relied_on(tmp_path, known, settled, monkeypatch):
    path = write(tmp_path / "file", "one")
    monkeypatch.setattr(digest, "file_digest", lambda file, *_: write(file, "more than one") and "sha256:torn")
    assert known().of(path) == "sha256:torn"
    monkeypatch.undo()
    assert known().of(path) == file_digest(tmp_path / "file")


@pytest.mark.parametrize("damage", ["{", "", "null", "flipped", "bytes", "folder"])
def test_a_damaged_memory_counts_as_missing(tmp_path, known, settled, reads, damage):
    path, memory = write(tmp_path / "file", "one"), tmp_path / "outputs" / CACHE_FILE
    right = known().of(path)
    text = memory.read_text()
    if damage == "folder":
        memory.unlink()
        memory.mkdir()
    elif damage == "bytes":
        memory.write_bytes(b"\xff\xfe\x00")
    else:
        memory.write_text(text.replace(right[-8:], "00000000") if damage == "flipped" else damage)
    assert known().of(path) == right and len(reads) == 2


def test_processes_beside_each_other_keep_what_each_has_learned(tmp_path, known, settled, reads):
    one, other = known(), known()
    paths = [write(tmp_path / name, name) for name in "ab"]
    assert one.known == other.known == {}
    one.of(paths[0]), other.of(paths[1])
    assert sorted(known().known) == paths
    assert len(reads) == 2 and [known().of(path) for path in paths] and len(reads) == 2
    assert [file.name for file in (tmp_path / "outputs").iterdir()] == [CACHE_FILE]


def test_no_folder_is_made_for_the_memory_and_it_is_saved_once_there_is_one(tmp_path, settled, reads):
    digests, path = Digests(tmp_path / "later" / CACHE_FILE), write(tmp_path / "a", "x")
    before = digests.of(path)
    assert not (tmp_path / "later").exists()
    (tmp_path / "later").mkdir()
    digests.save()
    assert Digests(tmp_path / "later" / CACHE_FILE).of(path) == before and len(reads) == 1


def test_a_name_that_is_no_text_is_kept(tmp_path, known, settled, reads):
    name = os.fsdecode(b"\xff.png")
    write(tmp_path / "folder" / name, "1")
    before = known().of(str(tmp_path / "folder"))
    assert known().of(str(tmp_path / "folder")) == before and len(reads) == 1
    json.loads((tmp_path / "outputs" / CACHE_FILE).read_text().partition("\n")[2])


def test_what_has_changed_is_said_once(pictures, known, caplog, settled):
    with caplog.at_level(logging.DEBUG, "dfkd"):
        known().of(str(pictures))
        assert not [text for text in caplog.messages if "cannot be written" in text]
    caplog.clear()
    with caplog.at_level(logging.INFO, "dfkd"):
        known().of(str(pictures))
        assert caplog.messages == []
        noise(pictures)
        known().of(str(pictures)), known().of(str(pictures))
    assert caplog.messages == [f"{pictures} has changed since it was last used: what depends on it is made anew"]


def test_a_large_folder_is_not_walked_for_every_cell_of_a_sweep(pictures, known, monkeypatch):
    monkeypatch.setattr(digest, "LONG", -1)
    now = [100.0]
    monkeypatch.setattr(digest.time, "monotonic", lambda: now.__setitem__(0, now[0] + 1) or now[0])  # 1 s a walk
    digests = known()
    before = digests.of(str(pictures))
    write(pictures / "train" / "dog" / "2", "new")
    assert digests.of(str(pictures)) == before
    now[0] += 10
    assert digests.of(str(pictures)) != before
