"""The content-addressed store: built once, whole or not at all, repaired when damaged. No torch in here."""

import errno
import fcntl
import json
import logging
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from dfkd.errors import ConfigError
from dfkd.store.files import file_lock, is_held, try_lock, write_atomic
from dfkd.store.keys import content_key
from dfkd.store.record import with_digest
from dfkd.store.store import Store

KEY = "0123456789abcdef"
spawn = multiprocessing.get_context("spawn")


def write_numbers(folder: Path) -> dict:
    (folder / "numbers.txt").write_text("1 2 3\n")
    (folder / "more.bin").write_bytes(bytes(range(256)))
    return {"answer": 42}


def leftovers(root: Path) -> list[str]:
    """Files and folders under the root that are neither locks nor finished artifacts."""
    return [p.name for p in root.rglob("*") if ".tmp" in p.name]


def never(_: Path) -> dict:
    raise AssertionError("built although it was there")


def test_the_second_fetch_reuses_what_the_first_built(tmp_path):
    store = Store(tmp_path / "store")
    first = store.fetch("pool", KEY, write_numbers, about={"rounds": 3})
    second = store.fetch("pool", KEY, never)
    assert (first.reused, second.reused) == (False, True)
    assert first.path == second.path == tmp_path / "store" / "pool" / KEY
    assert second.meta == first.meta and second.meta["answer"] == 42 and second.meta["seconds"] >= 0
    assert (second.path / "numbers.txt").read_text() == "1 2 3\n"


def test_an_artifact_says_what_it_is(tmp_path):
    path = Store(tmp_path).fetch("pool", KEY, write_numbers, {"rounds": 3}, {"teacher": "t"}).path
    record = json.loads((path / "meta.json").read_text())
    assert record["stage"] == "pool" and record["key"] == KEY
    assert record["about"] == {"rounds": 3} and record["inputs"] == {"teacher": "t"}
    assert sorted(record["files"]) == ["more.bin", "numbers.txt"]


def test_an_artifact_appears_only_when_it_is_finished(tmp_path):
    def build(folder: Path) -> dict:
        write_numbers(folder)
        assert not (tmp_path / "pool" / KEY).exists()
        return {}

    Store(tmp_path).fetch("pool", KEY, build)
    assert (tmp_path / "pool" / KEY / "meta.json").exists() and leftovers(tmp_path) == []


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_builder_that_raises_leaves_nothing(tmp_path, error):
    def build(folder: Path) -> dict:
        write_numbers(folder)
        raise error("on the way")

    with pytest.raises(error):
        Store(tmp_path).fetch("pool", KEY, build)
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == [f".{KEY}.lock"]
    assert not (tmp_path / "pool" / KEY).exists() and leftovers(tmp_path) == []
    assert Store(tmp_path).fetch("pool", KEY, write_numbers).reused is False


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, Path.unlink, lambda path: path.write_text("")])
@pytest.mark.parametrize("name", ["numbers.txt", "more.bin", "meta.json"])
def test_damage_is_noticed_named_and_repaired(tmp_path, caplog, name, damage):
    store = Store(tmp_path)
    path = store.fetch("pool", KEY, write_numbers).path
    whole = {file.name: file.read_bytes() for file in path.iterdir() if file.name != "meta.json"}
    damage(path / name)
    with caplog.at_level(logging.WARNING, "dfkd"):
        again = store.fetch("pool", KEY, write_numbers)
    assert again.reused is False
    assert str(path) in caplog.text and "damaged" in caplog.text
    assert {file.name: file.read_bytes() for file in path.iterdir() if file.name != "meta.json"} == whole
    assert store.fetch("pool", KEY, never).reused


def test_an_altered_number_in_the_metadata_is_noticed(tmp_path):
    store = Store(tmp_path)
    meta = store.fetch("pool", KEY, write_numbers).path / "meta.json"
    meta.write_text(meta.read_text().replace('"answer": 42', '"answer": 43'))
    assert store.fetch("pool", KEY, write_numbers).meta["answer"] == 42


def test_an_artifact_under_the_key_of_another_is_not_taken_for_it(tmp_path):
    store, other = Store(tmp_path), "f" * 16
    store.fetch("pool", KEY, write_numbers).path.rename(tmp_path / "pool" / other)
    assert store.fetch("pool", other, write_numbers).reused is False


def test_a_whole_artifact_is_read_without_a_warning(tmp_path, caplog):
    store = Store(tmp_path)
    store.fetch("pool", KEY, write_numbers)
    with caplog.at_level(logging.DEBUG, "dfkd"):
        store.fetch("pool", KEY, never)
    assert caplog.text == ""


def _fetch_slowly(root: Path, barrier, results) -> None:
    def build(folder: Path) -> dict:
        with (root / "built").open("a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(0.3)
        return write_numbers(folder)

    barrier.wait()
    results.put(Store(root).fetch("pool", KEY, build).reused)


def test_processes_that_want_the_same_artifact_build_it_once(tmp_path):
    barrier, results = spawn.Barrier(3), spawn.Queue()
    workers = [spawn.Process(target=_fetch_slowly, args=(tmp_path, barrier, results)) for _ in range(3)]
    for worker in workers:
        worker.start()
    reused = sorted(results.get(timeout=60) for _ in workers)
    for worker in workers:
        worker.join(60)
    assert reused == [False, True, True]
    assert len((tmp_path / "built").read_text().splitlines()) == 1


def _build_until_killed(root: Path) -> None:
    def build(folder: Path) -> dict:
        write_numbers(folder)
        (root / "half-way").touch()
        time.sleep(60)
        return {}

    Store(root).fetch("pool", KEY, build)


def test_a_killed_builder_leaves_nothing_that_counts_and_the_next_one_cleans_up(tmp_path):
    worker = spawn.Process(target=_build_until_killed, args=(tmp_path,))
    worker.start()
    deadline = time.monotonic() + 60
    while not (tmp_path / "half-way").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(worker.pid, signal.SIGKILL)
    worker.join(60)
    assert worker.exitcode == -signal.SIGKILL
    assert leftovers(tmp_path) != [] and not (tmp_path / "pool" / KEY).exists()
    artifact = Store(tmp_path).fetch("pool", KEY, write_numbers)
    assert artifact.reused is False and leftovers(tmp_path) == []
    assert Store(tmp_path).fetch("pool", KEY, never).reused


def test_a_builders_checkpoint_outlives_a_failure_and_not_its_artifact(tmp_path):
    store = Store(tmp_path)
    file = store.checkpoint("pool", KEY)

    def build(folder: Path) -> dict:
        assert file.exists() == (not first)
        file.write_text("half of it")
        if first:
            raise OSError("the disk is full, say")
        return write_numbers(folder)

    first = True
    with pytest.raises(OSError):
        store.fetch("pool", KEY, build)
    file.with_name(f"{file.name}.1.tmp").write_text("a part of it")  # of one that was killed while it wrote
    first = False
    store.fetch("pool", KEY, build)
    assert not file.exists() and leftovers(tmp_path) == []
    file.write_text("killed between the two")
    assert store.fetch("pool", KEY, never).reused and not file.exists()


def test_a_key_is_sixteen_hexadecimal_digits_and_does_not_depend_on_order():
    key = content_key("pool", 2, {"a": 1, "b": {"c": [1, 2], "d": None}}, {"teacher": "t", "split": "s"})
    assert len(key) == 16 and int(key, 16) >= 0
    assert key == content_key("pool", 2, {"b": {"d": None, "c": (1, 2)}, "a": 1}, {"split": "s", "teacher": "t"})


@pytest.mark.parametrize(
    ("stage", "version", "config", "inputs"),
    [
        ("split", 2, {"a": 1}, {"teacher": "t"}),
        ("pool", 3, {"a": 1}, {"teacher": "t"}),
        ("pool", 2, {"a": 2}, {"teacher": "t"}),
        ("pool", 2, {"a": 1, "b": None}, {"teacher": "t"}),
        ("pool", 2, {"b": 1}, {"teacher": "t"}),
        ("pool", 2, {"a": [1]}, {"teacher": "t"}),
        ("pool", 2, {"a": 1}, {"teacher": "u"}),
        ("pool", 2, {"a": 1}, {"student": "t"}),
        ("pool", 2, {"a": 1}, {}),
    ],
)
def test_a_key_depends_on_everything_that_counts(stage, version, config, inputs):
    assert content_key(stage, version, config, inputs) != content_key("pool", 2, {"a": 1}, {"teacher": "t"})


def test_a_key_does_not_depend_on_what_an_option_is_called():
    assert content_key("pool", 2, {"name": "x", "a": {"name": "y"}}) == content_key("pool", 2, {"a": {}})


def test_an_option_that_came_later_counts_once_it_is_set():
    before = content_key("teacher", 1, {"network": {"blocks": [2]}})
    assert content_key("teacher", 1, {"network": {"blocks": [2], "stem": None}, "entry": None}) == before
    assert content_key("teacher", 1, {"network": {"blocks": [2], "stem": "conv7_pool"}}) != before


def test_an_atomic_write_replaces_and_leaves_no_temporary_file(tmp_path):
    for text in ("old", "new"):
        write_atomic(tmp_path / "file", text)
    assert (tmp_path / "file").read_text() == "new" and os.listdir(tmp_path) == ["file"]


def test_a_lock_is_let_go_of_when_its_block_fails(tmp_path):
    with pytest.raises(RuntimeError), file_lock(tmp_path / "lock", "it"):
        raise RuntimeError
    with file_lock(tmp_path / "lock", "it"):  # would wait for ever
        pass


def test_an_artifact_of_before_inputs_were_noted_is_still_good(tmp_path):
    store = Store(tmp_path)
    meta = store.fetch("pool", KEY, write_numbers).path / "meta.json"
    record = json.loads(meta.read_text())
    del record["inputs"], record["digest"]
    meta.write_text(json.dumps(with_digest(record)))
    assert store.fetch("pool", KEY, never).meta["answer"] == 42


def test_find_gives_what_is_there_and_whole_and_builds_nothing(tmp_path):
    store = Store(tmp_path)
    assert store.find("pool", KEY) is None and list(tmp_path.iterdir()) == []
    path = store.fetch("pool", KEY, write_numbers).path
    assert store.find("pool", KEY).path == path
    truncate(path / "more.bin")
    assert store.find("pool", KEY) is None


def test_a_lock_that_is_held_is_seen_and_not_taken(tmp_path):
    lock = tmp_path / "lock"
    assert not is_held(lock) and not lock.exists()
    with file_lock(lock, "it"):
        assert is_held(lock)
        with try_lock(lock) as mine:
            assert not mine
    assert not is_held(lock)
    with try_lock(lock) as mine:
        assert mine and is_held(lock)


def test_a_lock_file_that_was_deleted_meanwhile_is_made_anew(tmp_path, monkeypatch):
    """Else the one that waits for the old file and the one that makes a new file would both go on."""
    lock, flock, seen = tmp_path / "lock", fcntl.flock, []

    def deleted_at_first(handle, how):
        if not seen:
            lock.unlink()
        seen.append(how)
        return flock(handle, how)

    monkeypatch.setattr(fcntl, "flock", deleted_at_first)
    with file_lock(lock, "it"):
        assert len(seen) == 2 and lock.exists() and is_held(lock)


def test_what_another_machine_has_made_meanwhile_is_taken(tmp_path):
    """A shared disk may tell late of a folder that another machine has made: found when ours is put into its place."""
    theirs = Store(tmp_path / "theirs").fetch("pool", KEY, write_numbers).path

    def build(folder: Path) -> dict:
        shutil.copytree(theirs, tmp_path / "store" / "pool" / KEY)
        return write_numbers(folder)

    found = Store(tmp_path / "store").fetch("pool", KEY, build)
    assert found.reused and found.meta["answer"] == 42 and leftovers(tmp_path) == []


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with pytest.raises(ConfigError, match=r"lock cannot be locked \(Function not implemented\).*set outputs=DIR"):
        Store(tmp_path).fetch("pool", KEY, write_numbers)


def test_to_see_a_lock_one_need_not_be_its_owner(tmp_path):
    lock = tmp_path / "lock"
    with file_lock(lock, "it"):
        lock.chmod(0o444)
        assert is_held(lock)
    assert not is_held(lock)
