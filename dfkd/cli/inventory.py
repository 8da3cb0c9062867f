"""An inventory of an outputs folder: artifacts, leftovers of killed processes, and run folders with their artifacts.

Nothing is written, and torch is not imported. A run folder lists its artifacts in `stages.json`, which is written
before the first of them is fetched, and in `result.json`.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dfkd.errors import Damaged, Inaccessible
from dfkd.store.access import entries
from dfkd.store.files import TEMPORARY, is_being_written, is_held
from dfkd.store.run_folder import KEY, RunFolder, run_folders
from dfkd.store.store import meta_record

# Names of files in a stage's folder that are not artifacts. The name of the last matching group is their kind.
LEFT = re.compile(
    r"\.(?P<key>[0-9a-f]{16})\.(?:(?P<lock>lock)|(?P<temporary>(?:.+\.)?\d+\.tmp)|(?P<checkpoint>checkpoint.*))"
)


@dataclass(frozen=True)
class Item:
    """An artifact, whole or damaged.

    Attributes:
        record: content of its meta.json; empty if the file is damaged or not readable.
    """

    stage: str
    path: Path
    record: dict

    @property
    def key(self) -> str:
        return self.path.name

    @property
    def inputs(self) -> dict[str, str] | None:
        """Keys of the artifacts that are its inputs, by stage; None if meta.json does not list them (old versions)."""
        return self.record.get("inputs")


@dataclass(frozen=True)
class Leftover:
    """A file or folder that a builder created before its artifact was finished, or an incomplete file of a process.

    A builder is a process that makes an artifact.

    Attributes:
        kind: 'lock', 'temporary' or 'checkpoint'.
        stage, key: stage and key of the artifact; for a file outside the store, its folder and name.
        path: path of the file or folder.
        lock: the lock file that its writer holds; None if there is none.
        busy: whether the writer is running.
        made: whether the artifact exists by now.
    """

    kind: str
    stage: str
    key: str
    path: Path
    lock: Path | None
    busy: bool
    made: bool = False


@dataclass(frozen=True)
class Run:
    """A run folder.

    Attributes:
        state: 'finished' (it has a result), 'damaged' (its result is damaged), 'running' (a process is working on it,
            or will be), 'unfinished', or 'unreadable' (access is denied).
        stages: its artifacts, {stage: key}; None if unknown.
    """

    folder: Path
    state: str
    stages: dict[str, str] | None

    @property
    def hash(self) -> str:
        """The cell's hash, the end of the folder's name."""
        return self.folder.name.rpartition("-")[2]


@dataclass
class Inventory:
    """The content of an outputs folder, made by `take_inventory`.

    Attributes:
        stages: names of stages, with inputs before the stages that use them.
        items: artifacts by (stage, key), ordered by stage and age.
        leftovers: leftovers of builders and other processes.
        runs: all run folders.
        problems: messages about files and folders to which access is denied.
    """

    stages: list[str] = field(default_factory=list)
    items: dict[tuple[str, str], Item] = field(default_factory=dict)
    leftovers: list[Leftover] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def users(self, item: Item) -> list[Run]:
        """Return the run folders that refer to an artifact."""
        return [run for run in self.runs if (run.stages or {}).get(item.stage) == item.key]

    def fed_by(self, item: Item) -> list[Item]:
        """Return all artifacts in the store on which an artifact depends: its inputs first, then their inputs."""
        items: dict[tuple[str, str], Item] = {}
        queue = list((item.inputs or {}).items())
        for reference in queue:  # the queue grows during the loop
            if reference in self.items and reference not in items:
                items[reference] = self.items[reference]
                queue += (items[reference].inputs or {}).items()
        return list(items.values())

    def depth(self, item: Item) -> int:
        """Return the length of the longest chain of inputs of an artifact; 0 without inputs in the store."""
        fed_by = [self.items[reference] for reference in (item.inputs or {}).items() if reference in self.items]
        return max((1 + self.depth(other) for other in fed_by), default=0)

    def feeds(self, item: Item) -> list[Item]:
        """Return the artifacts that have an artifact as a direct input."""
        return [other for other in self.items.values() if (other.inputs or {}).get(item.stage) == item.key]


def take_inventory(outputs: Path) -> Inventory:
    """Make the inventory of an outputs folder.

    Raises:
        Inaccessible: access to `store` or `runs` is denied, so that it is not known which artifacts are needed.
    """
    inventory = Inventory()
    for stage in (path for path in entries(outputs / "store") if not path.name.startswith(".")):
        try:
            paths = sorted(entries(stage), key=changed)
        except Inaccessible as error:
            inventory.problems.append(str(error))
            continue
        for path in paths:
            if KEY.fullmatch(path.name):
                inventory.items[stage.name, path.name] = Item(stage.name, path, _record(path, inventory.problems))
        for path in paths:
            if match := LEFT.fullmatch(path.name):
                key, lock = match["key"], stage / f".{match['key']}.lock"
                made = (stage.name, key) in inventory.items
                inventory.leftovers.append(Leftover(match.lastgroup, stage.name, key, path, lock, is_held(lock), made))
    # Runs after artifacts, so that a run that starts meanwhile is included.
    inventory.runs = [_run(folder) for folder in run_folders(outputs / "runs")]
    inventory.leftovers += _temporaries(outputs, [run.folder for run in inventory.runs])
    depth: dict[str, int] = {}
    for item in inventory.items.values():
        depth[item.stage] = max(depth.get(item.stage, 0), inventory.depth(item))
    inventory.stages = sorted(depth, key=lambda stage: (depth[stage], stage))
    inventory.items = dict(sorted(inventory.items.items(), key=lambda entry: inventory.stages.index(entry[1].stage)))
    return inventory


def _run(folder: Path) -> Run:
    files = RunFolder(folder)
    try:
        stages = files.stages()
        result = files.record()
    except Damaged:
        return Run(folder, "damaged", stages)
    except Inaccessible:
        return Run(folder, "unreadable", None)
    if result is not None and stages:
        return Run(folder, "finished", stages)
    return Run(folder, "running" if files.is_wanted else "unfinished", stages)


def _record(folder: Path, problems: list[str]) -> dict:
    """Read the meta.json of an artifact; {} if it is damaged or not readable. The latter is added to `problems`."""
    try:
        return meta_record(folder)
    except Damaged:
        return {}
    except Inaccessible as error:
        problems.append(str(error))
        return {}


def _temporaries(outputs: Path, runs: list[Path]) -> Iterator[Leftover]:
    """Yield temporary files outside of the store, of running and of killed processes."""
    others = (outputs, outputs / "sweeps", outputs / "reports", *entries(outputs / "reports"))
    for folder, lock in [(run, run / ".lock") for run in runs] + [(folder, None) for folder in others]:
        try:
            paths = [path for path in entries(folder) if TEMPORARY.fullmatch(path.name)]
        except Inaccessible:
            continue  # commands that need the folder report it
        for path in paths:
            where = folder.name if folder != outputs else "."
            yield Leftover("temporary", where, path.name, path, lock, is_being_written(path, lock))


def changed(path: Path) -> float:
    """Return the modification time of a file or folder, in seconds since the epoch; 0 if it cannot be read."""
    try:
        return path.lstat().st_mtime
    except OSError:
        return 0.0


def size(path: Path) -> int:
    """Return the size in bytes of a file, or of all accessible files below a folder."""
    files = [path] if not os.path.isdir(path) else [Path(at, name) for at, _, names in os.walk(path) for name in names]
    return sum(map(_bytes, files))


def _bytes(file: Path) -> int:
    try:
        return file.lstat().st_size
    except OSError:
        return 0
