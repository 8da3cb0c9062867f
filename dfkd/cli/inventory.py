"""What lies under an outputs folder: artifacts, what builders left, and the run folders that refer to them.

Reads only, and imports no torch. A run folder names its artifacts in `stages.json`, which is written before the first
of them is fetched, and in its `result.json`.
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

# Names in a stage's folder beside those of artifacts; the last group that matches is the kind.
LEFT = re.compile(
    r"\.(?P<key>[0-9a-f]{16})\.(?:(?P<lock>lock)|(?P<temporary>(?:.+\.)?\d+\.tmp)|(?P<checkpoint>checkpoint.*))"
)


@dataclass(frozen=True)
class Item:
    """An artifact, whole or damaged.

    Attributes:
        record: its meta.json; empty if that is damaged, or the system does not let us read it.
    """

    stage: str
    path: Path
    record: dict

    @property
    def key(self) -> str:
        return self.path.name

    @property
    def inputs(self) -> dict[str, str] | None:
        """Keys of the artifacts that feed it, by stage; None where its meta.json does not say (dfkd before that)."""
        return self.record.get("inputs")


@dataclass(frozen=True)
class Leftover:
    """What a builder wrote before its artifact was there, or a process before a file was whole.

    Attributes:
        kind: 'lock', 'temporary' or 'checkpoint'.
        stage, key: of the artifact; of a file elsewhere its folder and name.
        lock: the lock file of who writes there; None where there is no such.
        busy: whether the builder is at work.
        made: whether the artifact is there by now.
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
        state: 'finished' (it has a result), 'damaged' (it had one), 'running' (a process is at work on it, or will be),
            'unfinished' or 'unreadable' (the system does not let us look).
        stages: its artifacts, {stage: key}; None if it does not say.
    """

    folder: Path
    state: str
    stages: dict[str, str] | None

    @property
    def hash(self) -> str:
        """The last eight digits of its name."""
        return self.folder.name.rpartition("-")[2]


@dataclass
class Inventory:
    """All of it, by `take`.

    Attributes:
        stages: names, those that feed others first.
        items: artifacts by (stage, key), in the order of stages and by age.
        problems: what the system does not let us look at.
    """

    stages: list[str] = field(default_factory=list)
    items: dict[tuple[str, str], Item] = field(default_factory=dict)
    leftovers: list[Leftover] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def users(self, item: Item) -> list[Run]:
        """The run folders that refer to an artifact."""
        return [run for run in self.runs if (run.stages or {}).get(item.stage) == item.key]

    def fed_by(self, item: Item) -> list[Item]:
        """The artifacts in the store that feed one, its inputs first, then what feeds those."""
        found: dict[tuple[str, str], Item] = {}
        queue = list((item.inputs or {}).items())
        for reference in queue:  # grows on the way
            if reference in self.items and reference not in found:
                found[reference] = self.items[reference]
                queue += (found[reference].inputs or {}).items()
        return list(found.values())

    def depth(self, item: Item) -> int:
        """How many stages lie before it: those that feed others come first."""
        fed_by = [self.items[reference] for reference in (item.inputs or {}).items() if reference in self.items]
        return max((1 + self.depth(other) for other in fed_by), default=0)

    def feeds(self, item: Item) -> list[Item]:
        """The artifacts that one feeds directly."""
        return [other for other in self.items.values() if (other.inputs or {}).get(item.stage) == item.key]


def take(outputs: Path) -> Inventory:
    """Look through an outputs folder.

    Raises:
        Inaccessible: the system does not let us look into `store` or `runs`: what nobody needs cannot be told then.
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
    inventory.runs = [_run(folder) for folder in run_folders(outputs / "runs")]  # last: one that begins now is seen
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
    """The meta.json of an artifact, or nothing; notes that the system does not let us read it."""
    try:
        return meta_record(folder)
    except Damaged:
        return {}
    except Inaccessible as error:
        problems.append(str(error))
        return {}


def _temporaries(outputs: Path, runs: list[Path]) -> Iterator[Leftover]:
    """Files that were being written outside of the store's stages when their process was killed."""
    others = (outputs, outputs / "sweeps", outputs / "reports", *entries(outputs / "reports"))
    for folder, lock in [(run, run / ".lock") for run in runs] + [(folder, None) for folder in others]:
        try:
            paths = [path for path in entries(folder) if TEMPORARY.fullmatch(path.name)]
        except Inaccessible:
            continue  # who needs what is in there says so
        for path in paths:
            where = folder.name if folder != outputs else "."
            yield Leftover("temporary", where, path.name, path, lock, is_being_written(path, lock))


def changed(path: Path) -> float:
    """When a file or folder was changed last; 0 if that cannot be told."""
    try:
        return path.lstat().st_mtime
    except OSError:
        return 0.0


def size(path: Path) -> int:
    """Bytes of a file, or of all files below a folder, as far as the system lets us look."""
    files = [path] if not os.path.isdir(path) else [Path(at, name) for at, _, names in os.walk(path) for name in names]
    return sum(map(_bytes, files))


def _bytes(file: Path) -> int:
    try:
        return file.lstat().st_size
    except OSError:
        return 0
