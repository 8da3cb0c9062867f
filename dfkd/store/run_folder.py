"""A run folder, `<outputs>/runs/<cell>`. Its files are read and written here only. Imports no torch.

config.yaml    the cell's configuration, resolved
stages.json    {stage: key}, written before the first artifact is fetched: `gc` of the store keeps the named artifacts
status.json    {"status": "waiting" ("after": another cell), "running", "done", "failed" or "interrupted", "command":
               the command that repeats the run, ...}
metrics.jsonl  rows of metrics, written by the tracker
result.json    the result, with checksums of itself and of all other files that the run has written
               (`dfkd.store.record`); does not exist before the run is done
.lock          locked by the process that works on the run

The result of an older dfkd has no checksums except that of its student. It counts as undamaged, and every report of it
says that it cannot be checked: a new run would cost as much as the old one, and checksums added now would confirm files
that were never checked.
"""

import contextlib
import json
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from dfkd.errors import Damaged, Inaccessible, Missing
from dfkd.store.access import entries, is_there, read_object, reading, writing
from dfkd.store.digest import file_digest
from dfkd.store.files import file_lock, is_held, write_atomic
from dfkd.store.record import check_digest, check_files, with_digest

log = logging.getLogger("dfkd")
MARKS = ("result.json", "status.json", "config.yaml", "stages.json")  # a folder with one of them is a run folder
NOT_EXPORTED = re.compile(r"\.|profile_|(result|status)\.json$")  # beginnings of names of files without a checksum
MEASURED = ("iacc", "oacc", "olacc", "asr")  # metrics of the teacher that every result holds
SUFFIXES = (".json", ".jsonl", ".yaml", ".safetensors", ".png")  # of the files that a run writes
HASH = re.compile(r"-([0-9a-f]{8})$")  # the end of a run folder's name
KEY = re.compile(r"[0-9a-f]{16}")  # the name of an artifact
DEPTH = 8  # levels of folders that are searched for run folders


def run_folders(root: Path, depth: int = DEPTH) -> Iterator[Path]:
    """Yield the run folders in a folder, sorted by name. Subfolders are searched too, since the names of older run
    folders could contain slashes.

    Raises:
        Inaccessible: the operating system refuses to list a folder.
    """
    for path in entries(root):
        if RunFolder(path).is_run:
            yield path
        elif depth > 1 and os.path.isdir(path) and not path.is_symlink():
            yield from run_folders(path, depth - 1)


def is_checkable(result: dict) -> bool:
    """Return whether a result has checksums. A result of an older dfkd has none."""
    return "digest" in result


class RunFolder:
    """One run folder. It can be read even if its files are missing or damaged.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path):
        self.path = path
        self._stamps: dict[str, tuple] = {}  # {file name: stamp} of the files that existed when the run began

    @property
    def is_run(self) -> bool:
        """Whether the folder holds a file of MARKS; also True if the operating system refuses to look."""
        try:
            return any(is_there(self.path / mark) for mark in MARKS)
        except OSError:
            return True

    @property
    def is_held(self) -> bool:
        """Whether a process works on this run now."""
        return is_held(self.path / ".lock")

    @property
    def is_wanted(self) -> bool:
        """Whether a process works on this run, or on the run that this one waits for ("after" in status.json)."""
        status = self.status()
        leader = self.path.parent / Path(str(status.get("after"))).name
        return self.is_held or (status.get("status") == "waiting" and is_held(leader / ".lock"))

    def lock(self) -> contextlib.AbstractContextManager:
        """Return a context manager that locks the run folder, and waits while another process holds the lock.

        The folder is created if missing.

        Raises:
            Inaccessible: the operating system refuses to write there.
        """
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        return file_lock(self.path / ".lock", f"cell {self.path.name}")

    def record(self) -> dict | None:
        """Return the content of result.json, without a check of the other files; None if the run has not finished.

        Raises:
            Damaged: result.json has changed since it was written, is that of another cell or of no run, or is missing
                although the status is 'done'.
            Inaccessible: the operating system refuses to read it.
        """
        try:
            result = read_object(self.path / "result.json")
        except Missing:
            if self.status().get("status") == "done":
                raise
            return None
        own = HASH.search(self.path.name)
        if is_checkable(result):
            check_digest(result, "result.json")
        if not _is_result(result):
            raise Damaged("result.json is none of a run")
        if own and result.get("hash", own[1]) != own[1]:
            raise Damaged("result.json is that of another cell")
        return result

    def checked_result(self) -> dict | None:
        """Return the content of result.json, after a check of every file that it has a checksum of; None if the run has
        not finished.

        Raises:
            Damaged: a file is missing or has changed; the message names it.
            Inaccessible: the operating system refuses to read a file.
        """
        result = self.record()
        if result is None:
            return None
        student = {"student.safetensors": result["student_digest"]} if "student_digest" in result else {}
        check_files(student | result.get("files", {}), self.path)
        return result

    def undamaged_result(self) -> dict | None:
        """Like `checked_result`, but None if the result or one of its files is damaged.

        Raises:
            Inaccessible: the operating system refuses to read a file.
        """
        try:
            return self.checked_result()
        except Damaged:
            return None

    def damage(self) -> str | None:
        """Return a description of the damage to a finished run; None if it is undamaged or has not finished."""
        try:
            self.checked_result()
        except Damaged as error:
            return str(error)
        return None

    def status(self) -> dict:
        """Return the content of status.json; {} if it cannot be read."""
        try:
            return read_object(self.path / "status.json")
        except (Damaged, Inaccessible):
            return {}

    def stages(self) -> dict[str, str] | None:
        """Return {stage: key} of the artifacts, from stages.json and result.json; None if neither has valid keys."""
        planned, made = _object(self.path / "stages.json"), _object(self.path / "result.json").get("stages")
        made = made if isinstance(made, dict) else {}
        keys = {stage: of["key"] for stage, of in made.items() if isinstance(of, dict) and _is_key(of.get("key"))}
        try:
            if self.record() is not None:
                return planned | keys if _are_keys(planned) else keys or None
        except Damaged:
            pass
        return keys | planned if _are_keys(planned) else None

    def config(self) -> dict:
        """Return the content of config.yaml; {} if it is missing or damaged.

        Raises:
            Inaccessible: the operating system refuses to read it.
        """
        try:
            with reading(self.path / "config.yaml"):
                text = (self.path / "config.yaml").read_text()
            config = yaml.safe_load(text)
            return json.loads(json.dumps(config, default=str)) if isinstance(config, dict) else {}
        except Inaccessible:
            raise
        except (ValueError, TypeError, RecursionError, yaml.YAMLError):
            return {}

    def expect(self, config: dict, stages: dict[str, str], after: str, command: str | None) -> None:
        """Write config.yaml, stages.json and the status 'waiting' of a run that begins later. Nothing is done if it has
        begun or finished already.

        Args:
            config, stages: as in `begin`.
            after: name of the cell that this process works on now.
            command: the command that repeats what this process runs.
        """
        if self.is_run and self.status().get("status") != "waiting":
            return
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            self._plan(config, stages)
            self.set_status("waiting", command=command, after=after)

    def begin(self, config: dict, stages: dict[str, str]) -> None:
        """Prepare the folder for a run that begins: write config.yaml and stages.json, and remove the result and the
        status of an earlier run.

        Args:
            config: resolved configuration of the cell.
            stages: {stage: key} of its artifacts.

        Raises:
            Inaccessible: the operating system refuses to write there.
        """
        self._stamps = {file.name: _stamp(file) for file in entries(self.path)}
        with writing(self.path):
            for path in entries(self.path):
                if path.suffix in SUFFIXES and path.is_dir():
                    log.warning("%s is a folder in the place of a file: it is moved to %s.folder", path, path.name)
                    path.rename(path.with_name(f"{path.name}.folder"))
            self._plan(config, (self.stages() or {}) | stages)  # an earlier run may have made later stages
            for name in ("status.json", "result.json"):  # in this order: the status is never 'done' without a result
                (self.path / name).unlink(missing_ok=True)

    def _plan(self, config: dict, stages: dict[str, str]) -> None:
        write_atomic(self.path / "config.yaml", yaml.safe_dump(config, sort_keys=False))
        _write(self.path / "stages.json", stages)

    def set_status(self, status: str, **more: str | int | None) -> None:
        """Write status.json.

        Args:
            status: 'waiting', 'running', 'done', 'failed' or 'interrupted'.
            more: further entries: process id, host and start time of a running run, error and traceback of a failed or
                interrupted one, the command. Those that are None are left out.
        """
        _write(self.path / "status.json", {k: v for k, v in {"status": status, **more}.items() if v is not None})

    def write_result(self, result: dict) -> dict:
        """Write result.json, with checksums of all files that were written into the folder since `begin`.

        Args:
            result: the content. It may hold checksums (`files`) of an earlier run of the cell; they stay.

        Returns:
            the content with all checksums, as written.
        """
        exported = (file for file in entries(self.path) if file.is_file() and not NOT_EXPORTED.match(file.name))
        new = [file for file in exported if self._stamps.get(file.name) != _stamp(file)]
        files = result.get("files", {}) | {file.name: file_digest(file) for file in new}
        record = with_digest(result | {"files": files})
        _write(self.path / "result.json", record)
        return record

    def renew_result(self, result: dict) -> None:
        """Replace result.json and keep its checksums of other files. A result without checksums gets none."""
        _write(self.path / "result.json", with_digest(result) if is_checkable(result) else result)


def _is_result(result: dict) -> bool:
    """Return whether an object has the form of a run's result. Results of an older dfkd have no digest to check."""
    parts = [result.get("config"), result.get("teacher"), result.get("student", {}), result.get("stages", {})]
    if not all(isinstance(part, dict) for part in parts):
        return False
    if is_checkable(result):
        return True
    measured = [part.get(key) for part in parts[1:3] if part for key in MEASURED]
    return set(MEASURED) <= set(parts[1]) and all(value is None or isinstance(value, int | float) for value in measured)


def _is_key(key: object) -> bool:
    return isinstance(key, str) and KEY.fullmatch(key) is not None


def _are_keys(stages: dict) -> bool:
    return bool(stages) and all(map(_is_key, stages.values()))


def _stamp(file: Path) -> tuple[int, ...]:
    """Return (inode, mtime in nanoseconds, size in bytes): a file that was written again has another stamp."""
    stat = file.lstat()
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def _object(file: Path) -> dict:
    """Return the object in a JSON file; {} if the file is missing, cut short, or holds no object."""
    try:
        return read_object(file)
    except Damaged:
        return {}


def _write(file: Path, content: dict) -> None:
    write_atomic(file, json.dumps(content, indent=2) + "\n")
