"""Hydra's callback of a sweep: chooses the file of the list at the start; prints the table and failures at the end."""

import json
import os
import shlex
import sys
import time
from pathlib import Path

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from dfkd.config.cell import stages_until
from dfkd.config.messages import explain
from dfkd.config.paths import expand_home
from dfkd.machine import interrupt
from dfkd.store.files import write_atomic
from dfkd.store.run_folder import RunFolder
from dfkd.store.store import Store
from dfkd.sweeps import ledger
from dfkd.sweeps.plan import plan_in_words

JOBLIB = "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"  # its workers outlive a killed parent
PARALLEL = "hydra_plugins.dfkd_launchers.ParallelLauncher"  # the same, whose workers do not


def final_row(row: dict) -> dict:
    """Return the last row of a cell at the end of its sweep. If it still says 'running', because the last row was lost,
    the status comes from the run folder."""
    status = RunFolder(Path(row["folder"])).status() if row["status"] == "running" and row["folder"] else {}
    if status.get("status") not in ("done", "failed", "interrupted"):
        return row
    return row | {"status": status["status"], "error": str(status.get("error", ""))}


class SweepReport(Callback):
    """Hydra callback: chooses the file of the list at the start, and reports when all cells have ended.

    It also replaces joblib's own launcher by ours.
    """

    def on_multirun_start(self, config: DictConfig, **_: object) -> None:
        name = f"{time.strftime('%Y-%m-%d_%H-%M-%S')}-{os.getpid()}.jsonl"
        ledger.start(Path(expand_home(config.outputs)) / "sweeps" / name)
        if config.hydra.launcher._target_ == JOBLIB:
            config.hydra.launcher._target_ = PARALLEL
        if "basic_launcher" not in config.hydra.launcher._target_:
            interrupt.shield_children()

    def on_multirun_end(self, config: DictConfig, **_: object) -> None:
        rows, path = list(map(final_row, ledger.last_rows())), ledger.list_path()
        outputs, problems = Path(expand_home(config.outputs)), 0
        if config.dry_run:
            path.unlink(missing_ok=True)
            print(plan_in_words(rows, Store(outputs / "store")))
        else:
            write_atomic(path, "".join(json.dumps(row) + "\n" for row in rows))
            if any(row["status"] == "done" for row in rows):
                of_teachers = "stages" in config and "student" not in stages_until(config)
                problems += not self.table(path, outputs, of_teachers)
        failed = [row for row in rows if row["status"] == "failed"]
        for row in failed:
            print(f"\nFAILED: {row.get('error')}")
            folder = Path(row["folder"] or "")
            if "traceback" in RunFolder(folder).status():
                print(f"  traceback: {folder / 'status.json'}")
            print(f"  retry: dfkd {shlex.join(row['arguments'] or ())}")
        left = [row["status"] for row in rows if row["status"] in ("waiting", "interrupted")]
        stopped = "interrupted" in left or bool(left and not config.get("fail_fast"))
        if stopped:  # a worker process was asked to stop, but not this process
            print(f"\n{len(left)} of {len(rows)} cells were interrupted or not started; the same command goes on there")
        elif left:
            print(f"\n{len(left)} of {len(rows)} cells were not started: fail_fast=true")
        if failed:
            print(f"\n{len(failed)} of {len(rows)} cells failed; the same command retries only those")
        if failed or problems or stopped:
            sys.exit(1)

    def table(self, sweep: Path, outputs: Path, of_teachers: bool) -> bool:
        """Print the table of the finished cells; return whether that succeeded, because Hydra ignores exceptions
        here."""
        from dfkd.report import report_of_sweep
        from dfkd.report.teachers import report_of_teachers

        try:
            write = report_of_teachers if of_teachers else report_of_sweep
            print(write(sweep, outputs / "reports"))
            return True
        except Exception as error:
            print(f"\nthe cells are done, but there is no table of them: {explain(error)}")
            return False
