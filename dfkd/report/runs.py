"""Finds cells and reads their status and results from run folders, also while they are still running."""

import json
import logging
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dfkd.config.build import nearest
from dfkd.config.cell import content
from dfkd.config.lookup import one_line, value_at
from dfkd.errors import ConfigError, Damaged, Inaccessible
from dfkd.store.run_folder import RunFolder, run_folders
from dfkd.store.sweep_list import read_list

log = logging.getLogger("dfkd")

LOSSES = {"dfkd.distill.KL": "kl", "dfkd.distill.L1": "l1", "dfkd.distill.CrossEntropy": "cross_entropy"}


@dataclass
class Run:
    """One cell, as read from its run folder.

    Attributes:
        name: readable name with the hash.
        folder: the run folder; None for a cell that failed before it had one.
        status: 'done', 'waiting', 'running', 'killed' (status 'running', but no process holds its lock), 'failed',
            'interrupted', 'replaced' (by a newer result of the same command), 'damaged', or 'unreadable' (access is
            denied).
        config: the resolved configuration; empty if it cannot be read.
        result: content of result.json; empty unless done.
        reason: the reason why it is not done.
        command: command that repeats the cell; None if unknown.
    """

    name: str
    folder: Path | None
    status: str
    config: dict = field(default_factory=dict)
    result: dict = field(default_factory=dict)
    reason: str = ""
    command: str | None = None

    @property
    def done(self) -> bool:
        return self.status == "done"

    @property
    def seed(self) -> object:
        return self.config.get("seed")


def find(paths: list[Path]) -> list[Run]:
    """Find all cells at these paths, without duplicates, in the order of their sweeps; cells of no sweep by name.

    Args:
        paths: run folders, outputs folders, their `runs` folders, or sweep lists (outputs/sweeps/*.jsonl).

    Raises:
        ConfigError: no path has runs. If only some have none, these are logged as warnings.
    """
    runs: dict[object, Run] = {}
    for path in paths:
        try:
            path_runs = _runs_at(path)
        except ConfigError as error:
            if path == paths[-1] and not runs:
                raise
            log.warning("WARNING: %s", error)
            continue
        for run in path_runs:
            runs.setdefault(run.folder.resolve() if run.folder else (run.command, run.reason), run)
    _set_replaced(list(runs.values()))
    return list(runs.values())


def _set_replaced(runs: list[Run]) -> None:
    """Mark all but the newest of the finished cells with equal configurations in one folder as 'replaced'.

    Their hashes differ because a file, the user's code, or our version has changed in between.
    """
    newest: dict[tuple[Path, str], Run] = {}
    for run in sorted((run for run in runs if run.done), key=lambda run: (run.folder / "result.json").stat().st_mtime):
        same = run.folder.resolve().parent, json.dumps(content(run.config), sort_keys=True)
        older = newest.get(same)
        if older is not None:
            older.status, older.result, older.command = "replaced", {}, None
            older.reason = f"the same command has made {run.name} since, of changed files or code"
        newest[same] = run


def _runs_at(path: Path) -> list[Run]:
    if path.is_file():
        return list(_listed(path))
    if _is_run(path):
        return [read(path, _commands(path.parent.parent).get(path.name))]
    folder = path / "runs" if (path / "runs").is_dir() else path
    folders = list(run_folders(folder))
    if not folders and path.is_dir() and folder == path:
        raise ConfigError(
            f"{path} holds no runs; name an outputs folder, run folders, or sweep lists (outputs/sweeps/*.jsonl)"
        )
    if not folders and folder == path:
        beside = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
        near = nearest(path.name, beside)
        raise ConfigError(f"there is no '{path}'" + (near if "did you mean" in near else ""))
    commands = _commands(folder.parent)
    order = {name: i for i, name in enumerate(commands)}
    folders.sort(key=lambda file: order.get(file.name, len(order)))
    return [read(file, commands.get(file.name)) for file in folders]


def _is_run(folder: Path) -> bool:
    return RunFolder(folder).is_run


def _listed(sweep: Path) -> Iterator[Run]:
    """Yield the cells of a sweep's list, in the order of the sweep.

    Run folders are first searched relative to the list, because the whole outputs folder may have been moved.
    """
    rows = _rows(sweep)
    if not rows and sweep.stat().st_size:
        raise ConfigError(f"{sweep} is no list of a sweep (outputs/sweeps/*.jsonl)")
    for row in rows:
        command = _command(row)
        folder = Path(row["folder"]) if row.get("folder") else None
        if folder is not None:
            moved = sweep.parent.parent / "runs" / folder.name
            folder = moved if moved.is_dir() else folder
        if folder is not None and _is_run(folder):
            run = read(folder, command)
            if run.status == "damaged" and row.get("error"):
                run.reason = one_line(row["error"])
            yield run
        else:
            name = one_line(folder.name if folder else " ".join(row["arguments"]))
            waits = row.get("status") == "waiting"
            reason = "not started yet" if waits else one_line(row.get("error") or "its folder is gone")
            yield Run(name, None, "waiting" if waits else "failed", reason=reason, command=command)


def _commands(outputs: Path) -> dict[str, str]:
    """Return {name of a run folder: command that repeats it} for all sweeps in an outputs folder, oldest first."""
    rows = []
    for file in sorted((outputs / "sweeps").glob("*.jsonl")):
        try:
            rows += _rows(file)
        except Inaccessible as error:
            log.warning("WARNING: %s", error)
    return {Path(row["folder"]).name: _command(row) for row in rows if row.get("folder")}


def _rows(sweep: Path) -> list[dict]:
    """Return the last row of every cell in a sweep's list, by number, as parallel cells end in another order."""
    last = {row["number"]: row for row in read_list(sweep) if row["arguments"] is not None}
    return [last[number] for number in sorted(last)]


def _command(row: dict) -> str:
    return one_line(shlex.join(["dfkd", *row["arguments"]]))


def read(folder: Path, command: str | None = None) -> Run:
    """Read a run folder; its files may be missing or damaged.

    Args:
        command: command that repeats the cell, if the folder does not contain it.
    """
    run = Run(one_line(folder.name), folder, "done", command=command)
    try:
        _fill(run, RunFolder(folder))
    except Inaccessible as error:
        run.status, run.config, run.result, run.reason = "unreadable", {}, {}, one_line(error)
    return run


def _fill(run: Run, files: RunFolder) -> None:
    """Set the fields of a run from the files of its folder."""
    status, damage = files.status(), "its result.json is missing"
    try:
        run.result = files.checked_result() or {}
        damage = "its result.json is none of a run" if run.result else damage
    except Damaged as error:
        damage = str(error)
    command = run.result.get("command") or status.get("command") or run.command
    run.command = command and one_line(command)
    if _complete(run.result):
        run.config = run.result["config"]
        _name_loss(run.config)
        return
    run.result, run.config = {}, _known(files.config())
    _name_loss(run.config)
    run.status, run.reason = status.get("status"), one_line(status.get("error") or "")
    if run.status == "running":
        run.reason = "still at work"
        if not files.is_held:
            run.status, run.reason = "killed", "it never said how it ended, and no process is at work on it"
    elif run.status == "waiting":
        run.reason = "not started yet"
    elif run.status not in ("failed", "interrupted"):
        run.status, run.reason = "damaged", f"{damage}; its command makes it again"


def _name_loss(config: dict) -> None:
    """Add the name of the loss to an old cell, from before losses were options, so that new cells can be in its row."""
    loss = value_at(config, "student.loss")
    if isinstance(loss, dict) and loss.get("_target_") in LOSSES:
        loss.setdefault("name", LOSSES[loss["_target_"]])


def _complete(result: dict) -> bool:
    """Whether a result has the entries that a finished run writes."""
    try:
        content(result["config"])
        parts = (result["teacher"], result.get("student", {}), result["config"]["seeds"])  # no student: until=premise
        return all(isinstance(part, dict) for part in parts) and "seed" in result["config"]
    except (KeyError, TypeError, AttributeError):
        return False


def _known(config: dict) -> dict:
    """Return a configuration if it is that of a cell, otherwise {}."""
    try:
        content(config)
        return config
    except (KeyError, TypeError, AttributeError):
        return {}
