"""What lies under an outputs folder: artifacts, what builders left, and the run folders that refer to them.

Reads only, and imports no torch. A run folder names its artifacts in `stages.json`, which is written before the first
of them is fetched, and in its `result.json`.
"""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from dfkd.store.files import is_held
from dfkd.store.run_folder import RunFolder

# Names in a stage's folder beside those of artifacts; the last group that matches is the kind.
LEFT = re.compile(r"\.(?P<key>[0-9a-f]{16})\.(?:(?P<lock>lock)|(?P<checkpoint>checkpoint.*)|(?P<temporary>\d+\.tmp))")


@dataclass(frozen=True)
class Item:
    """An artifact, whole or damaged.

    Attributes:
        record: its meta.json; empty if that cannot be read.
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
    """What a builder wrote before its artifact was there.

    Attributes:
        kind: 'lock', 'temporary' or 'checkpoint'.
        busy: whether the builder is at work.
        made: whether the artifact is there by now.
    """

    kind: str
    stage: str
    key: str
    path: Path
    busy: bool
    made: bool


@dataclass(frozen=True)
class Run:
    """A run folder.

    Attributes:
        state: 'finished' (it has a result), 'running' (a process holds its lock) or 'unfinished'.
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
    """

    stages: list[str] = field(default_factory=list)
    items: dict[tuple[str, str], Item] = field(default_factory=dict)
    leftovers: list[Leftover] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)

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
    """Look through an outputs folder."""
    inventory = Inventory()
    for stage in sorted(path.name for path in (outputs / "store").glob("*") if path.is_dir()):
        entries = sorted((outputs / "store" / stage).glob("*"), key=lambda path: path.lstat().st_mtime)
        for path in entries:
            if path.is_dir() and not path.name.startswith("."):
                inventory.items[stage, path.name] = Item(stage, path, _read(path / "meta.json") or {})
        for path in entries:
            if match := LEFT.fullmatch(path.name):
                key, busy = match["key"], is_held(path.parent / f".{match['key']}.lock")
                made = (stage, key) in inventory.items
                inventory.leftovers.append(Leftover(match.lastgroup, stage, key, path, busy, made))
    depth: dict[str, int] = {}
    for item in inventory.items.values():
        depth[item.stage] = max(depth.get(item.stage, 0), inventory.depth(item))
    inventory.stages = sorted(depth, key=lambda stage: (depth[stage], stage))
    inventory.items = dict(sorted(inventory.items.items(), key=lambda entry: inventory.stages.index(entry[1].stage)))
    inventory.runs = [run for folder in sorted((outputs / "runs").glob("*")) if (run := _run(folder))]
    return inventory


def _run(folder: Path) -> Run | None:
    """A run folder, or None if nothing ran in it."""
    files = RunFolder(folder)
    if not files.is_run:
        return None
    if isinstance(files.result().get("stages"), dict):
        return Run(folder, "finished", files.stages())
    return Run(folder, "running" if files.is_held else "unfinished", files.stages())


def _read(file: Path) -> dict | None:
    """The JSON object in a file, or None."""
    try:
        found = json.loads(file.read_text())
        return found if isinstance(found, dict) else None
    except (OSError, ValueError):
        return None


def size(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.lstat().st_size for file in files if file.is_file())
