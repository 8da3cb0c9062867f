"""`python -m dfkd.store`: what the store holds and who refers to it, whether it is whole, and what may go."""

import argparse
import contextlib
import difflib
import os
import sys
import time
from pathlib import Path

import yaml
from tqdm import tqdm

from dfkd.cli.inventory import Inventory, Item, Leftover, Run, changed, size, take_inventory
from dfkd.config.paths import path
from dfkd.errors import ConfigError, Damaged, Inaccessible
from dfkd.machine.environment import prepare_environment
from dfkd.store.files import try_lock
from dfkd.store.run_folder import KEY, RunFolder, is_checkable
from dfkd.store.store import read_record, remove
from dfkd.sweeps.plan import count_by_name, plural

SHOWN = 3  # largest number of run folders listed in a row


def main() -> None:
    """Run the command. The exit code is 1 if something is damaged, or if a requested artifact does not exist."""
    parser = argparse.ArgumentParser(prog="python -m dfkd.store", description=__doc__.partition(": ")[2])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(run, about: str) -> argparse.ArgumentParser:
        added = commands.add_parser(run.__name__, help=about, description=about)
        added.add_argument("--outputs", type=path, default=Path("outputs"), help="folder of runs/ and store/")
        added.set_defaults(run=run)
        return added

    command(ls, "list artifacts: size, age, cost, the cells that refer to them, what feeds them")
    command(show, "all about one artifact").add_argument("key", help="its key, or the beginning of it")
    command(verify, "read every artifact and every finished run folder, name what is damaged, sweep up what kills left")
    tidy = command(gc, "list what no cell needs; delete it with --yes")
    tidy.add_argument("--yes", action="store_true", help="delete what is listed")
    tidy.add_argument("--unfinished", action="store_true", help="also what only cells need that are not finished")
    arguments = parser.parse_args()
    try:
        prepare_environment()
        if not (arguments.outputs / "store").is_dir():
            raise ConfigError(f"there is no store in {arguments.outputs}; name the folder of your runs: --outputs DIR")
        inventory = take_inventory(arguments.outputs)
        for problem in inventory.problems:
            print(f"UNREADABLE  {problem}")
        sys.exit(arguments.run(inventory, arguments))
    except ConfigError as error:
        sys.exit(f"dfkd.store: {error}")
    except BrokenPipeError:  # `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def ls(inventory: Inventory, _: argparse.Namespace) -> int:
    """Print a line per artifact, a line per temporary folder or checkpoint, and the totals."""
    rows = [("stage", "key", "size", "age", "took", "cells", "fed by")]
    for item in inventory.items.values():
        seconds = item.record.get("meta", {}).get("seconds")
        took = "damaged" if not item.record else duration(seconds) if seconds is not None else "-"
        hashes = [run.hash + ("" if run.state == "finished" else "*") for run in inventory.users(item)]
        more = [f"+{len(hashes) - SHOWN}"] if len(hashes) > SHOWN else []
        fed_by = ", ".join(f"{stage} {key[:8]}" for stage, key in (item.inputs or {}).items())
        cells = " ".join(hashes[:SHOWN] + more) or "-"
        rows.append((item.stage, item.key, bytes_(size(item.path)), age(item.path), took, cells, fed_by or "-"))
    for leftover in inventory.leftovers:
        if leftover.kind != "lock":
            writer = "process" if leftover.kind == "temporary" else "builder"
            state = "being made" if leftover.busy else f"of a {writer} that is gone"
            about = f"{leftover.kind}, {state}"
            rows.append(
                (leftover.stage, leftover.key, bytes_(size(leftover.path)), age(leftover.path), "-", "-", about)
            )
    print(table(rows))
    total = sum(size(entry.path) for entry in (*inventory.items.values(), *inventory.leftovers))
    counts = ", ".join(count_by_name(list(inventory.items), inventory.stages).values())
    print(f"\n{counts or 'no artifacts'}: {bytes_(total)}")
    print(f"cells (the end of their folders' names; * not finished): {count_states(inventory.runs)}")
    return 0


def count_states(runs: list[Run]) -> str:
    """Count run folders by state, such as '3 finished, 1 unfinished'."""
    names = [run.state for run in runs]
    return ", ".join(f"{names.count(name)} {name}" for name in dict.fromkeys(names)) or "none"


def show(inventory: Inventory, arguments: argparse.Namespace) -> int:
    """Print all information about one artifact."""
    item = find_artifact(inventory, arguments.key)
    record, meta = item.record, item.record.get("meta", {})
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(changed(item.path)))
    print(f"{item.stage} {item.key}\n  {item.path}")
    if not record:
        print("  damaged: its meta.json cannot be read; the next run that needs it makes it again")
        return 1
    took, memory = duration(meta["seconds"]), meta.get("peak_memory_mb")
    print(f"made     {when}, {took}" + (f", at most {memory:.0f} MB" if memory else "") + f", dfkd {record['dfkd']}")
    files = [f"{name} {bytes_(size(item.path / name))}" for name in (*record["files"], "meta.json")]
    print(f"files    {', '.join(files)}")
    if item.inputs is None:
        print("fed by   (made before dfkd noted it; the run folders below name what belongs together)")
    for name, others in (("fed by", inventory.fed_by(item)), ("feeds", inventory.feeds(item))):
        for i, other in enumerate(others):
            print(f"{'' if i else name:<8} {other.stage} {other.key}")
    for i, run in enumerate(inventory.users(item)):
        note = "" if run.state == "finished" else f" ({run.state})"
        print(f"{'' if i else 'cells':<8} {run.folder}{note}")
    print(f"\n{yaml.safe_dump(record['about'], sort_keys=False).rstrip()}")
    return 0


def find_artifact(inventory: Inventory, prefix: str) -> Item:
    """Return the artifact whose key starts with `prefix`.

    Raises:
        ConfigError: no key or several keys start with it.
    """
    items = [item for item in inventory.items.values() if item.key.startswith(prefix)]
    if len(items) == 1:
        return items[0]
    if items:
        named = "\n".join(f"  {item.stage} {item.key}" for item in items)
        raise ConfigError(f"'{prefix}' begins {len(items)} keys; write more of it:\n{named}")
    if not inventory.items:
        raise ConfigError("the store is empty")

    def likeness(item: Item) -> tuple[int, float]:
        same = next((i for i, (a, b) in enumerate(zip(item.key, prefix, strict=False)) if a != b), len(prefix))
        return same, difflib.SequenceMatcher(None, item.key[: len(prefix)], prefix).ratio()

    nearest = max(inventory.items.values(), key=likeness)
    raise ConfigError(f"no key begins with '{prefix}'; the nearest is {nearest.stage} {nearest.key}")


def verify(inventory: Inventory, _: argparse.Namespace) -> int:
    """Verify the checksums of all artifacts and finished run folders, report damage, and delete the temporary files of
    killed processes."""
    runs = [run.folder for run in inventory.runs if run.state in ("finished", "damaged", "unreadable")]
    damaged, unreadable, unchecked = read_again([item.path for item in inventory.items.values()], runs)
    for text in damaged:
        print(f"DAMAGED  {text}")
    for text in unreadable:
        if text not in inventory.problems:
            print(f"UNREADABLE  {text}")
    problems = [f"{len(damaged)} damaged: the commands that made them make them again"] if damaged else []
    refused = len({*unreadable, *inventory.problems})
    problems += [f"{refused} not readable, which is no damage"] if refused else []
    counts = f"{plural(len(inventory.items), 'artifact')} and {plural(len(runs), 'finished run folder')}"
    print(f"{counts}: {'; '.join(problems) or 'all are whole'}")
    if unchecked:
        print(f"{plural(unchecked, 'run folder')} of an older dfkd kept no checksums and cannot be checked")
    temporary = (leftover for leftover in inventory.leftovers if leftover.kind == "temporary" and not leftover.busy)
    swept = [leftover for leftover in temporary if delete(leftover)]
    if swept:
        print(f"swept up {plural(len(swept), 'temporary file')} of processes that were killed")
    return int(bool(problems))


def read_again(artifacts: list[Path], runs: list[Path]) -> tuple[list[str], list[str], int]:
    """Verify artifacts and run folders.

    Returns:
        messages about damage; messages about denied access; the number of run folders without checksums.
    """
    damaged, unreadable, unchecked = [], [], 0
    todo = [(folder, read_record) for folder in artifacts] + [(folder, checked) for folder in runs]
    for folder, read in tqdm(todo, disable=None, leave=False):
        try:
            unchecked += not read(folder)
        except Damaged as error:
            damaged.append(f"{folder}: {error}")
        except Inaccessible as error:
            unreadable.append(str(error))
    return damaged, unreadable, unchecked


def checked(folder: Path) -> bool:
    """Verify a run folder; return whether it has checksums.

    Raises:
        Damaged, Inaccessible: see `RunFolder.checked_result`.
    """
    result = RunFolder(folder).checked_result()
    return result is not None and is_checkable(result)


def gc(inventory: Inventory, arguments: argparse.Namespace) -> int:
    """List artifacts and leftovers that no cell needs; with --yes, delete them.

    Artifacts of finished and damaged cells, and files in use by a process, are never deleted. If a run starts during
    the deletion and needs a deleted artifact, it fails with a message; the same command then makes the artifact again.
    """
    unfinished = arguments.unfinished
    unneeded = [item for item in inventory.items.values() if is_unneeded(inventory, item, unfinished)]
    unknown = [run for run in inventory.runs if run.stages is None and (run.state != "unfinished" or not unfinished)]
    if unknown:
        folders = ", ".join(str(run.folder) for run in unknown[:SHOWN])
        old = all(run.state == "unfinished" for run in unknown)
        how = ", or add --unfinished if nothing runs in them" if old else ""
        print(f"all artifacts are kept: {plural(len(unknown), 'run folder')} may need them that cannot say which:")
        print(f"finish them or delete them{how}: {folders}")
        unneeded = []
    leftovers = [leftover for leftover in inventory.leftovers if is_stale(leftover, unfinished)]
    reasons = {True: "only unfinished cells need it", False: "no cell needs it"}
    rows = [("delete", i.stage, i.key, bytes_(size(i.path)), reasons[bool(inventory.users(i))]) for i in unneeded]
    rows += [
        ("delete", i.stage, i.key, bytes_(size(i.path)), f"{i.kind}, no builder") for i in leftovers if i.kind != "lock"
    ]
    if rows:
        print(table(rows))
    locks = sum(i.kind == "lock" for i in leftovers)
    total = bytes_(sum(size(entry.path) for entry in (*unneeded, *leftovers)))
    parts = (len(unneeded), "artifact"), (len(leftovers) - locks, "leftover"), (locks, "lock file")
    what = f"{', '.join(plural(count, name) for count, name in parts)}: {total}"
    if not arguments.yes:
        print(f"would delete {what}; add --yes to do it")
        return 0
    undeleted = [entry for entry in (*leftovers, *unneeded) if not delete(entry)]
    for entry in undeleted:
        print(f"kept {entry.path}: a process has just begun to use it, or it is not ours to delete")
    print(f"deleted {what}" + (f", but for {len(undeleted)}" if undeleted else ""))
    return 0


def is_unneeded(inventory: Inventory, item: Item, unfinished: bool) -> bool:
    """Whether an artifact may be deleted: no cell needs it or, if `unfinished` is set, only cells need it that are
    unfinished and not running."""
    return all(run.state == "unfinished" and unfinished for run in inventory.users(item))


def is_stale(leftover: Leftover, unfinished: bool) -> bool:
    """Whether a leftover may be deleted. A checkpoint is kept until its artifact exists, unless `unfinished`."""
    return not leftover.busy and (leftover.kind != "checkpoint" or leftover.made or unfinished)


def delete(entry: Item | Leftover) -> bool:
    """Delete an artifact or a leftover while holding its lock; return False if another process holds the lock, or if
    access is denied."""
    lock = entry.path.parent / f".{entry.key}.lock" if isinstance(entry, Item) else entry.lock
    with contextlib.suppress(OSError, Inaccessible):
        if lock is None:
            remove(entry.path)
            return True
        lock.touch()
        with try_lock(lock) as is_locked:
            if not is_locked:
                return False
            if isinstance(entry, Item):  # renamed first, so that no process reads a partly deleted artifact
                gone = lock.with_name(f".{entry.key}.{os.getpid()}.tmp")
                entry.path.rename(gone)
                remove(gone)
            elif entry.path != lock:
                remove(entry.path)
            if KEY.fullmatch(entry.key):  # only locks in the store; the lock of a run folder remains
                lock.unlink(missing_ok=True)
        return True
    return False


def table(rows: list[tuple[str, ...]]) -> str:
    """Format rows as text with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def bytes_(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def age(path: Path) -> str:
    return duration(time.time() - changed(path))


def duration(seconds: float) -> str:
    """Format a duration as one number with its unit."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
