"""A run folder, `<outputs>/runs/<cell>`: the only reader and writer of its files. Imports no torch.

config.yaml    the cell's configuration, resolved
stages.json    {stage: key}, written before the first of them is fetched: the store keeps what it names
status.json    {"status": "running", "done", "failed" or "interrupted", "command": what repeats the cell, ...}
metrics.jsonl  rows of metrics, written by the tracker
result.json    what came out; not there until the run is done
.lock          held by the process that is at work on it
"""

import contextlib
import json
from pathlib import Path

import yaml

from dfkd.store.digest import file_digest
from dfkd.store.files import file_lock, is_held, write_atomic

MARKS = ("result.json", "status.json", "config.yaml", "stages.json")  # a folder with one of them is a run folder


class RunFolder:
    """One run folder; nothing in it has to be there, or whole, to be read.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path):
        self.path = path

    @property
    def is_run(self) -> bool:
        """Whether the folder holds files of a run."""
        return any((self.path / mark).is_file() for mark in MARKS)

    @property
    def is_held(self) -> bool:
        """Whether a process is at work on it."""
        return is_held(self.path / ".lock")

    def claimed(self) -> contextlib.AbstractContextManager:
        """Inside the block no other process is at work on it; waits until that is so."""
        self.path.mkdir(parents=True, exist_ok=True)
        return file_lock(self.path / ".lock", f"cell {self.path.name}")

    def result(self) -> dict:
        """What its result.json says; {} where it is missing or damaged."""
        return _object(self.path / "result.json")

    def whole_result(self) -> dict | None:
        """The result; None if there is none, or its student (if it has one) is not the one it tells of."""
        result = self.result()
        try:
            digest = result.get("student_digest")
            whole = digest is None or file_digest(self.path / "student.safetensors") == digest
        except OSError:
            return None
        return result if whole and "hash" in result else None

    def status(self) -> dict:
        """What its status.json says; {} where it is missing or damaged."""
        return _object(self.path / "status.json")

    def stages(self) -> dict[str, str] | None:
        """{stage: key} of its artifacts; None where it does not say."""
        try:
            return {name: stage["key"] for name, stage in self.result()["stages"].items()}
        except (TypeError, KeyError, AttributeError):
            return _object(self.path / "stages.json") or None

    def config(self) -> dict:
        """Its configuration; {} where that cannot be read."""
        try:
            config = yaml.safe_load((self.path / "config.yaml").read_text())
            return json.loads(json.dumps(config, default=str)) if isinstance(config, dict) else {}
        except (OSError, ValueError, yaml.YAMLError):
            return {}

    def begin(self, config: dict, stages: dict[str, str]) -> None:
        """A run begins: from here on there is no result.

        Args:
            config: of the cell, resolved.
            stages: keys of its artifacts by stage.
        """
        write_atomic(self.path / "config.yaml", yaml.safe_dump(config, sort_keys=False))
        _write(self.path / "stages.json", stages)
        (self.path / "result.json").unlink(missing_ok=True)

    def set_status(self, status: str, **more: str | int | None) -> None:
        """Write status.json: 'running' (with the process, host and time of the beginning), 'done', 'failed' or
        'interrupted' (with the error and its traceback). What is None is left out."""
        _write(self.path / "status.json", {k: v for k, v in {"status": status, **more}.items() if v is not None})

    def write_result(self, result: dict) -> None:
        """Write result.json."""
        _write(self.path / "result.json", result)


def _object(file: Path) -> dict:
    """The object in a JSON file; an empty one where it is missing, cut short, or something else."""
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(file: Path, content: dict) -> None:
    write_atomic(file, json.dumps(content, indent=2) + "\n")
