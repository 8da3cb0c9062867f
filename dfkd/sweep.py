"""What a multirun leaves behind: which cells it had, a table of their results, and the failures with their retries."""

import contextlib
import json
import os
import shlex
import signal
import sys
import time
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from dfkd import interrupt
from dfkd.cell import Cell, status

LIST = "DFKD_SWEEP"  # environment variable: the file that collects the cells of this sweep, also from other processes
OWNER = "DFKD_SWEEP_OWNER"  # environment variable: the process that started the sweep


def job_number() -> int:
    """Which cell of its sweep this process is at; 0 without a sweep."""
    job = HydraConfig.get().job
    return 0 if OmegaConf.is_missing(job, "num") else job.num


def in_a_worker() -> bool:
    """Whether a parallel launcher started this process: others print to the same terminal."""
    return os.environ.get(OWNER, str(os.getpid())) != str(os.getpid())


def record(cell: Cell | None, status: str, error: str | None = None) -> None:
    """Note in the sweep's list, if there is a sweep, how a cell ended and the arguments that repeat it."""
    if LIST in os.environ:
        hydra = HydraConfig.get()
        own = [f"--config-dir={s.path}" for s in hydra.runtime.config_sources if s.provider == "command-line"]
        row = {
            "number": job_number(),
            "folder": str(cell.folder) if cell else None,
            "arguments": own + list(hydra.overrides.task),
            "status": status,
            "error": error,
        }
        with Path(os.environ[LIST]).open("a") as file:
            file.write(json.dumps(row) + "\n")


def announce(cell: Cell) -> None:
    """Note, if a parallel launcher started this process, that it begins a cell: `stop_workers` has to know."""
    if in_a_worker():
        with Path(os.environ[LIST]).with_suffix(".workers").open("a") as file:
            file.write(f"{os.getpid()} {cell.folder}\n")


def stop_workers() -> None:
    """Ask the processes that work for this sweep, if there are any, to save and stop; wait until they have."""
    file = Path(os.environ.get(LIST, os.devnull)).with_suffix(".workers")
    if in_a_worker() or not file.exists():
        return
    at = dict(line.split(" ", 1) for line in file.read_text().splitlines())  # the last cell of every process
    for process in at:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(process), signal.SIGTERM)
    while any(status(folder) == "running" for folder in at.values()):
        time.sleep(0.05)


class SweepReport(Callback):
    """Hydra callback: starts the list, and reports when all cells are through."""

    def on_multirun_start(self, config: DictConfig, **_: object) -> None:
        folder = Path(config.outputs) / "sweeps"
        folder.mkdir(parents=True, exist_ok=True)
        self.list = folder / f"{time.strftime('%Y-%m-%d_%H-%M-%S')}-{os.getpid()}.jsonl"
        self.list.touch()
        os.environ[LIST], os.environ[OWNER] = str(self.list), str(os.getpid())
        if "basic_launcher" not in config.hydra.launcher._target_:
            interrupt.shield_children()

    def on_multirun_end(self, config: DictConfig, **_: object) -> None:
        from dfkd.report import report

        rows = [json.loads(line) for line in self.list.read_text().splitlines()]
        rows.sort(key=lambda row: row["number"])  # parallel cells end in another order
        failed = [row for row in rows if row["status"] != "done"]
        folders = [Path(row["folder"]) for row in rows if row["status"] == "done"]
        if folders:
            print(report(folders, Path(config.outputs) / "reports"))
        for row in failed:
            print(f"\nFAILED: {row['error']}\n  retry: dfkd {shlex.join(row['arguments'])}")
        if failed:
            print(f"\n{len(failed)} of {len(rows)} cells failed; the same command retries only those")
            sys.exit(1)
