"""What a multirun leaves behind: which cells it had, a table of their results, and the failures with their retries."""

import json
import os
import shlex
import sys
import time
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from dfkd.cell import Cell

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


class SweepReport(Callback):
    """Hydra callback: starts the list, and reports when all cells are through."""

    def on_multirun_start(self, config: DictConfig, **_: object) -> None:
        folder = Path(config.outputs) / "sweeps"
        folder.mkdir(parents=True, exist_ok=True)
        self.list = folder / f"{time.strftime('%Y-%m-%d_%H-%M-%S')}-{os.getpid()}.jsonl"
        self.list.touch()
        os.environ[LIST], os.environ[OWNER] = str(self.list), str(os.getpid())

    def on_multirun_end(self, config: DictConfig, **_: object) -> None:
        from dfkd.report import report
        from dfkd.teacher_table import teacher_report

        rows = [json.loads(line) for line in self.list.read_text().splitlines()]
        rows.sort(key=lambda row: row["number"])  # parallel cells end in another order
        failed = [row for row in rows if row["status"] != "done"]
        folders = [Path(row["folder"]) for row in rows if row["status"] == "done"]
        if folders:
            write = teacher_report if config.get("until") == "premise" else report
            print(write(folders, Path(config.outputs) / "reports"))
        for row in failed:
            print(f"\nFAILED: {row['error']}\n  retry: dfkd {shlex.join(row['arguments'])}")
        if failed:
            print(f"\n{len(failed)} of {len(rows)} cells failed; the same command retries only those")
            sys.exit(1)
