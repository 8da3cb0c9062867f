"""The list of a sweep: what became of each of its cells, for all of its processes.

It is a JSON-lines file that they append to, one row when something becomes of a cell:
{"number": its place in the sweep, "folder": ..., "arguments": of the `dfkd` that repeats it, "with": the number of the
cell whose job it is run in (student.replicas), "status": "waiting",
"running" (with "process" or "job": its id, and "started": what tells it from a later one of that id), "done" (with
"cached": true if it was before), "planned" (with "stages"), "failed" (with "error") or "interrupted"}.
At the end one row a cell stays, the last.
"""

import fcntl
import hashlib
import itertools
import json
import logging
import os
import platform
import signal
import time
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from dfkd.config.cell import Cell
from dfkd.machine import processes
from dfkd.run.provenance import arguments
from dfkd.store.files import is_held, take_lock
from dfkd.store.run_folder import RunFolder
from dfkd.store.sweep_list import read_list
from dfkd.sweeps.plan import many

log = logging.getLogger("dfkd")

LIST = "DFKD_SWEEP"  # environment variable: the list of this sweep, for its other processes too
OWNER = "DFKD_SWEEP_OWNER"  # environment variable: the machine and process that started the sweep
GROUP = "DFKD_SWEEP_GROUP"  # environment variable: a name of its own for what the sweep computes
LAST_WORD = 3.0  # seconds that a process has, once it has let go of its cell


def in_a_worker() -> bool:
    """Whether a parallel launcher started this process: others print to the same terminal."""
    return os.environ.get(OWNER, me()) != me()


def me() -> str:
    """This process, among those of all machines."""
    return f"{platform.node()}:{os.getpid()}"


def announce(jobs: list[list[tuple[Cell, list[str], dict | None]]]) -> None:
    """Start the list.

    Args:
        jobs: their cells, each with the arguments that repeat it, and its result if it was finished before.
    """
    cells = [cell for job in jobs for cell in job]
    names = "\n".join(sorted(cell.folder.name for cell, _, _ in cells))
    os.environ[GROUP] = f"sweep-{hashlib.sha256(names.encode()).hexdigest()[:8]}"
    numbers = itertools.count()
    for job in jobs:
        launched = None
        for cell, repeat, result in job:
            row = {"number": next(numbers), "folder": str(cell.folder), "arguments": repeat}
            if result is not None:
                append(row | {"status": "done", "cached": True})
            elif launched is None:
                launched = row["number"]
                append(row | {"status": "waiting"})
            else:
                append(row | {"with": launched, "status": "waiting"})
    finished = sum(result is not None for _, _, result in cells)
    log.info("%s: %d finished before, %d to run", many(len(cells), "cell"), finished, len(cells) - finished)


def announce_again(numbers: list[int]) -> int:
    """Note that cells wait once more; returns what their launcher is to call the first of them."""
    first, last = len(launched()), {row["number"]: row for row in standing()}
    for number in numbers:
        append({key: last[number][key] for key in ("number", "folder", "arguments")} | {"status": "waiting"})
    return first


def record(cell: Cell | None, status: str, **more: object) -> None:
    """Note in the sweep's list, if there is a sweep, what became of the cell that this process is at."""
    if LIST in os.environ:
        folder = str(cell.folder) if cell else None
        known = next((row for row in events() if row["status"] == "waiting" and row["folder"] == folder), None)
        row = known or {"number": number(), "folder": folder, "arguments": arguments()}
        append(row | {"status": status} | more)


def number() -> int:
    """The place in its sweep of the cell that this process is at; 0 without a sweep."""
    job = HydraConfig.get().job
    return numbered(0 if OmegaConf.is_missing(job, "num") else job.num)


def launched() -> list[int]:
    """The places in their sweep of the cells whose jobs were announced, in the order in which their launcher counts
    them."""
    return [row["number"] for row in events() if row["status"] == "waiting" and "with" not in row]


def numbered(at: int) -> int:
    """The place in its sweep of what was launched as number `at`."""
    places = launched()
    return places[at] if at < len(places) else at  # another sweeper than ours announces nothing


def lost(at: int, arguments: list[str], error: str) -> None:
    """Note that the process of what was launched as number `at` has failed, unless it said itself what became of it."""
    number = numbered(at)
    unheard = {"number": number, "folder": None, "arguments": arguments, "status": "waiting"}
    for last in of_job(number) or [unheard]:
        if last["status"] not in ("waiting", "running"):
            continue
        append(last | {"status": "failed", "error": error})
        folder = RunFolder(Path(last["folder"] or ""))
        if last["status"] == "running" and folder.status():
            folder.set_status(**folder.status() | {"status": "failed", "error": error})


def of_job(number: int) -> list[dict]:
    """The last rows of a cell and of its replicas that are run with it."""
    return [row for row in standing() if number in (row["number"], row.get("with"))]


def place() -> dict[str, int | str | None]:
    """How a row names this process: as one that `stop_workers` may stop, or as a job that only its launcher may."""
    mine = os.getpid()
    return {"job" if "SUBMITIT_EXECUTOR" in os.environ else "process": mine, "started": processes.started(mine)}


def has_failed() -> bool:
    """Whether a cell of the sweep has failed."""
    return any(row["status"] == "failed" for row in events())


def append(row: dict) -> None:
    path = Path(os.environ[LIST])
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+", buffering=0) as file:
        take_lock(file, fcntl.LOCK_EX)  # rows of several processes do not mix, on a shared disk neither
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - 1, 0))
        torn = file.read(1) not in (b"", b"\n")  # by a process that was killed, or a disk that was full
        file.write(b"\n" * torn + f"{json.dumps(row)}\n".encode())


def events() -> list[dict]:
    """All rows of the sweep's list; none without a sweep."""
    return read_list(Path(os.environ[LIST])) if LIST in os.environ else []


def standing() -> list[dict]:
    """The last row of every cell, in the order of the sweep (parallel cells end in another)."""
    last = {row["number"]: row for row in events()}
    return [last[number] for number in sorted(last)]


def stop_workers() -> None:
    """Ask the processes that work for this sweep, if there are any, to save and stop; wait until they have. A process
    of somebody else that has got the number of one that ended is left alone."""
    if in_a_worker():
        return
    workers = {(row["process"], row.get("started")) for row in events() if "process" in row}
    for process, start in workers:
        if process != os.getpid():
            processes.send_signal(process, start, signal.SIGTERM)
    while any(is_of_another(row) and is_held(Path(row["folder"]) / ".lock") for row in standing()):
        time.sleep(0.05)
    late = time.monotonic() + LAST_WORD  # one that has let go of its cell has still to note how it ended
    while any(map(is_of_another, standing())) and time.monotonic() < late:
        time.sleep(0.05)


def is_of_another(row: dict) -> bool:
    """Whether another process of the sweep has begun this cell, and not noted its end."""
    return row["status"] == "running" and row.get("process", os.getpid()) != os.getpid()
