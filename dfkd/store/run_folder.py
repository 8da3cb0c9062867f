"""A run folder, `<outputs>/runs/<cell>`: the only reader and writer of its files. Imports no torch.

config.yaml    the cell's configuration, resolved
stages.json    {stage: key}, written before the first of them is fetched: the store keeps what it names
status.json    {"status": "waiting" ("after": another cell), "running", "done", "failed" or "interrupted", "command":
               what repeats it, ...}
metrics.jsonl  rows of metrics, written by the tracker
result.json    what came out, with checksums of itself and of all that the run has put beside it (`dfkd.store.record`);
               not there until the run is done
.lock          held by the process that is at work on it

A result of an older dfkd has no checksums, but that of its student. It is taken for whole, and whoever shows it says
that it cannot be checked: to make it again would cost what it has cost, and to add checksums now would call whole what
nobody has checked.
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
from dfkd.store.record import check_files, check_seal, sealed

log = logging.getLogger("dfkd")
MARKS = ("result.json", "status.json", "config.yaml", "stages.json")  # a folder with one of them is a run folder
NOT_EXPORTED = re.compile(r"\.|profile_|(result|status)\.json$")  # how the names of other files begin
MEASURED = ("iacc", "oacc", "olacc", "asr")  # of a teacher, in every result
SUFFIXES = (".json", ".jsonl", ".yaml", ".safetensors", ".png")  # of what a run writes
HASH = re.compile(r"-([0-9a-f]{8})$")  # the end of a run folder's name
KEY = re.compile(r"[0-9a-f]{16}")  # the name of an artifact
DEPTH = 8  # folders below each other in which runs are looked for


def run_folders(root: Path, depth: int = DEPTH) -> Iterator[Path]:
    """The run folders in a folder, by name. Those are found, too, that lie deeper: names once could have slashes.

    Raises:
        Inaccessible: the system does not let us look into the folder.
    """
    for path in entries(root):
        if RunFolder(path).is_run:
            yield path
        elif depth > 1 and os.path.isdir(path) and not path.is_symlink():
            yield from run_folders(path, depth - 1)


def is_checkable(result: dict) -> bool:
    """Whether a result has checksums; one of an older dfkd has none."""
    return "digest" in result


class RunFolder:
    """One run folder; nothing in it has to be there, or whole, to be read.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path):
        self.path = path
        self._stamps: dict[str, tuple] = {}  # of the files that were there when the run began

    @property
    def is_run(self) -> bool:
        """Whether the folder holds files of a run, or the system does not let us look."""
        try:
            return any(is_there(self.path / mark) for mark in MARKS)
        except OSError:
            return True

    @property
    def is_held(self) -> bool:
        """Whether a process is at work on it."""
        return is_held(self.path / ".lock")

    @property
    def is_wanted(self) -> bool:
        """Whether a process is at work on it, or on the cell after which it is to run."""
        status = self.status()
        leader = self.path.parent / Path(str(status.get("after"))).name
        return self.is_held or (status.get("status") == "waiting" and is_held(leader / ".lock"))

    def claimed(self) -> contextlib.AbstractContextManager:
        """Inside the block no other process is at work on it; waits until that is so.

        Raises:
            Inaccessible: the system does not let us write there.
        """
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        return file_lock(self.path / ".lock", f"cell {self.path.name}")

    def record(self) -> dict | None:
        """What its result.json says, without a look at the files beside it; None if the run has not finished.

        Raises:
            Damaged: it is not what a run has written there, or is gone.
            Inaccessible: the system does not let us read it.
        """
        try:
            result = read_object(self.path / "result.json")
        except Missing:
            if self.status().get("status") == "done":
                raise
            return None
        own = HASH.search(self.path.name)
        if is_checkable(result):
            check_seal(result, "result.json")
        if not _is_result(result):
            raise Damaged("result.json is none of a run")
        if own and result.get("hash", own[1]) != own[1]:
            raise Damaged("result.json is that of another cell")
        return result

    def checked_result(self) -> dict | None:
        """The result, after a look at every file that it tells of; None if the run has not finished.

        Raises:
            Damaged: one of them is missing or has changed; the message names it.
            Inaccessible: the system does not let us read one.
        """
        result = self.record()
        if result is None:
            return None
        student = {"student.safetensors": result["student_digest"]} if "student_digest" in result else {}
        check_files(student | result.get("files", {}), self.path)
        return result

    def whole_result(self) -> dict | None:
        """The result; None if there is none, or it is damaged.

        Raises:
            Inaccessible: the system does not let us read it.
        """
        try:
            return self.checked_result()
        except Damaged:
            return None

    def damage(self) -> str | None:
        """What is wrong with a run that has finished; None if nothing is, or it has not."""
        try:
            self.checked_result()
        except Damaged as error:
            return str(error)
        return None

    def status(self) -> dict:
        """What its status.json says; {} where it cannot be read."""
        try:
            return read_object(self.path / "status.json")
        except (Damaged, Inaccessible):
            return {}

    def stages(self) -> dict[str, str] | None:
        """{stage: key} of its artifacts; None where it does not say, or what it says is damaged."""
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
        """Its configuration; {} where that cannot be read."""
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
        """Note what a run will need that is to begin later, unless it has begun or finished.

        Args:
            config, stages: as in `begin`.
            after: the cell that its process is at now.
            command: what repeats it.
        """
        if self.is_run and self.status().get("status") != "waiting":
            return
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            self._plan(config, stages)
            self.set_status("waiting", command=command, after=after)

    def begin(self, config: dict, stages: dict[str, str]) -> None:
        """A run begins: from here on there is no result.

        Args:
            config: of the cell, resolved.
            stages: keys of its artifacts by stage.

        Raises:
            Inaccessible: the system does not let us write there.
        """
        self._stamps = {file.name: _stamp(file) for file in entries(self.path)}
        with writing(self.path):
            for path in entries(self.path):
                if path.suffix in SUFFIXES and path.is_dir():
                    log.warning("%s is a folder in the place of a file: it is moved to %s.folder", path, path.name)
                    path.rename(path.with_name(f"{path.name}.folder"))
            self._plan(config, (self.stages() or {}) | stages)  # an earlier run may have gone further
            for name in ("status.json", "result.json"):  # never 'done' without a result
                (self.path / name).unlink(missing_ok=True)

    def _plan(self, config: dict, stages: dict[str, str]) -> None:
        write_atomic(self.path / "config.yaml", yaml.safe_dump(config, sort_keys=False))
        _write(self.path / "stages.json", stages)

    def set_status(self, status: str, **more: str | int | None) -> None:
        """Write status.json: 'waiting', 'running' (with the process, host and time of the beginning), 'done', 'failed'
        or 'interrupted' (with the error and its traceback). What is None is left out."""
        _write(self.path / "status.json", {k: v for k, v in {"status": status, **more}.items() if v is not None})

    def write_result(self, result: dict) -> dict:
        """Write result.json, with checksums of everything that was put beside it since `begin`.

        Args:
            result: its content; checksums that an earlier run of the cell has left in it stay, where it is gone on
                from that.

        Returns:
            all that was written.
        """
        exported = (file for file in entries(self.path) if file.is_file() and not NOT_EXPORTED.match(file.name))
        new = [file for file in exported if self._stamps.get(file.name) != _stamp(file)]
        whole = sealed(result | {"files": result.get("files", {}) | {file.name: file_digest(file) for file in new}})
        _write(self.path / "result.json", whole)
        return whole

    def renew_result(self, result: dict) -> None:
        """Write result.json anew, with the checksums of other files as they are; one without any gets none."""
        _write(self.path / "result.json", sealed(result) if is_checkable(result) else result)


def _is_result(result: dict) -> bool:
    """Whether this looks like what a run writes. It has to be told where nothing was sealed."""
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
    """What differs once a file was written again."""
    stat = file.lstat()
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def _object(file: Path) -> dict:
    """The object in a JSON file; an empty one where it is missing, cut short, or something else."""
    try:
        return read_object(file)
    except Damaged:
        return {}


def _write(file: Path, content: dict) -> None:
    write_atomic(file, json.dumps(content, indent=2) + "\n")
