"""The list of a sweep: the status of each of its cells, shared by all processes of the sweep.

It is a JSON-lines file. A process appends a row whenever the status of a cell changes:
{"number": position in the sweep, "folder": the run folder, "arguments": those of the `dfkd` command that repeats the
cell, "with": number of the cell in whose job it runs (student.replicas), "status": "waiting",
"running" (with "process" or "job": the process id, and "started": its start time, which distinguishes it from a later
process with the same id), "done" (with "cached": true if it was finished before), "planned" (with "stages"), "failed"
(with "error") or "interrupted"}.
At the end of the sweep, only the last row of each cell is kept.
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
from collections.abc import Iterable
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from dfkd.config.cell import Cell
from dfkd.machine import processes
from dfkd.run.provenance import arguments
from dfkd.store.files import is_held, take_lock
from dfkd.store.run_folder import RunFolder
from dfkd.store.sweep_list import read_list
from dfkd.sweeps.plan import plural

log = logging.getLogger("dfkd")

# Environment variables, since a launcher starts its processes by itself and gives them nothing else of the sweep. Only
# this module reads and sets them.
LIST = "DFKD_SWEEP"  # path of the list
OWNER = "DFKD_SWEEP_OWNER"  # machine and process that started the sweep
GROUP = "DFKD_SWEEP_GROUP"  # a name derived from the cells that the sweep computes
LAST_WORD = 3.0  # seconds to wait for a process to write its last row, after it has released its cell's lock


def start(path: Path) -> None:
    """Begin a sweep, whose list will be the file `path`. Its processes inherit it."""
    os.environ[LIST] = str(path.absolute())
    os.environ[OWNER] = process_name()
    os.environ.pop(GROUP, None)


def list_path() -> Path | None:
    """Return the path of the sweep's list; None without a sweep."""
    return Path(os.environ[LIST]) if LIST in os.environ else None


def variables() -> dict[str, str]:
    """Return the environment variables of the sweep, for a process that does not inherit them."""
    return {name: os.environ[name] for name in (LIST, OWNER, GROUP) if name in os.environ}


def group() -> str | None:
    """Return the name of the group of the sweep's runs, which trackers may use; None without a sweep."""
    return os.environ.get(GROUP)


def set_group(kind: str, names: Iterable[str]) -> None:
    """Name the group of the sweep's runs `<kind>-<hash of the names>`, so that the same sweep has the same group."""
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
    os.environ[GROUP] = f"{kind}-{digest[:8]}"


def in_a_worker() -> bool:
    """Whether a parallel launcher started this process; other processes then print to the same terminal."""
    return os.environ.get(OWNER, process_name()) != process_name()


def process_name() -> str:
    """Return an identifier of this process that is unique over all machines: host name and process id."""
    return f"{platform.node()}:{os.getpid()}"


def announce(jobs: list[list[tuple[Cell, list[str], dict | None]]]) -> None:
    """Start the list with one row per cell.

    Args:
        jobs: the jobs, each a list of its cells as (cell, arguments that repeat it, result if it was finished before).
    """
    cells = [cell for job in jobs for cell in job]
    set_group("sweep", sorted(cell.folder.name for cell, _, _ in cells))
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
    log.info("%s: %d finished before, %d to run", plural(len(cells), "cell"), finished, len(cells) - finished)


def announce_again(numbers: list[int]) -> int:
    """Append rows for cells that wait for another launch; return the job number that the launcher must give to the
    first of them."""
    first, last = len(launched_numbers()), {row["number"]: row for row in last_rows()}
    for number in numbers:
        append({key: last[number][key] for key in ("number", "folder", "arguments")} | {"status": "waiting"})
    return first


def record(cell: Cell | None, status: str, **more: object) -> None:
    """Append the status of this process's current cell to the sweep's list, if there is a sweep."""
    if list_path() is not None:
        folder = str(cell.folder) if cell else None
        waiting = next((row for row in events() if row["status"] == "waiting" and row["folder"] == folder), None)
        row = waiting or {"number": number(), "folder": folder, "arguments": arguments()}
        append(row | {"status": status} | more)


def number() -> int:
    """Return the number in the sweep of this process's current cell; 0 without a sweep."""
    job = HydraConfig.get().job
    return cell_number(0 if OmegaConf.is_missing(job, "num") else job.num)


def launched_numbers() -> list[int]:
    """Return the numbers of the cells whose jobs were announced, indexed by the job numbers of the launcher."""
    return [row["number"] for row in events() if row["status"] == "waiting" and "with" not in row]


def cell_number(job: int) -> int:
    """Return the number in the sweep of the cell that was launched as job `job`."""
    numbers = launched_numbers()
    return numbers[job] if job < len(numbers) else job  # sweepers other than ours do not announce cells


def mark_lost(job: int, arguments: list[str], error: str) -> None:
    """Mark the cells of job `job` as failed, after its process died; cells with a final status are not changed."""
    number = cell_number(job)
    unknown = {"number": number, "folder": None, "arguments": arguments, "status": "waiting"}
    for last in job_rows(number) or [unknown]:
        if last["status"] not in ("waiting", "running"):
            continue
        append(last | {"status": "failed", "error": error})
        folder = RunFolder(Path(last["folder"] or ""))
        if last["status"] == "running" and folder.status():
            folder.set_status(**folder.status() | {"status": "failed", "error": error})


def job_rows(number: int) -> list[dict]:
    """Return the last rows of a cell and of the siblings that run in its job."""
    return [row for row in last_rows() if number in (row["number"], row.get("with"))]


def this_process() -> dict[str, int | str | None]:
    """Return the entries of a row that identify this process: as "process", which `stop_workers` may stop, or as "job",
    which only its launcher may stop."""
    process_id = os.getpid()
    return {
        "job" if "SUBMITIT_EXECUTOR" in os.environ else "process": process_id,
        "started": processes.start_time(process_id),
    }


def has_failed() -> bool:
    """Whether a cell of the sweep has failed."""
    return any(row["status"] == "failed" for row in events())


def append(row: dict) -> None:
    path = list_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+", buffering=0) as file:
        take_lock(file, fcntl.LOCK_EX)  # so that rows of several processes do not mix, not even on a shared disk
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - 1, 0))
        torn = file.read(1) not in (b"", b"\n")  # incomplete last row of a killed process, or due to a full disk
        file.write(b"\n" * torn + f"{json.dumps(row)}\n".encode())


def events() -> list[dict]:
    """Return all rows of the sweep's list; none without a sweep."""
    path = list_path()
    return [] if path is None else read_list(path)


def last_rows() -> list[dict]:
    """Return the last row of every cell, in the order of the sweep, which parallel cells do not finish in."""
    last = {row["number"]: row for row in events()}
    return [last[number] for number in sorted(last)]


def stop_workers() -> None:
    """Ask the other processes of this sweep, if any, to save and stop (SIGTERM), and wait until they have.

    An unrelated process that was given the process id of an ended one is not affected.
    """
    if in_a_worker():
        return
    workers = {(row["process"], row.get("started")) for row in events() if "process" in row}
    for process, start in workers:
        if process != os.getpid():
            processes.send_signal(process, start, signal.SIGTERM)
    while any(is_of_another(row) and is_held(Path(row["folder"]) / ".lock") for row in last_rows()):
        time.sleep(0.05)
    late = time.monotonic() + LAST_WORD  # a process writes its last row after it has released its cell's lock
    while any(map(is_of_another, last_rows())) and time.monotonic() < late:
        time.sleep(0.05)


def is_of_another(row: dict) -> bool:
    """Whether another process of the sweep runs this cell, according to the cell's row."""
    return row["status"] == "running" and row.get("process", os.getpid()) != os.getpid()
