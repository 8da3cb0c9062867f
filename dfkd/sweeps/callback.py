"""What Hydra calls when a sweep begins and ends: the list is named, the table and the failures are printed."""

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
from dfkd.config.paths import home
from dfkd.machine import interrupt
from dfkd.store.files import write_atomic
from dfkd.store.run_folder import RunFolder
from dfkd.store.store import Store
from dfkd.sweeps.ledger import GROUP, LIST, OWNER, me, standing
from dfkd.sweeps.plan import plan_in_words


def ended(row: dict) -> dict:
    """The row of a cell at the end of its sweep: where the line with its end was lost, as its run folder tells it."""
    told = RunFolder(Path(row["folder"])).status() if row["status"] == "running" and row["folder"] else {}
    if told.get("status") not in ("done", "failed", "interrupted"):
        return row
    return row | {"status": told["status"], "error": str(told.get("error", ""))}


class SweepReport(Callback):
    """Hydra callback: names the list, and reports when all cells are through."""

    def on_multirun_start(self, config: DictConfig, **_: object) -> None:
        name = f"{time.strftime('%Y-%m-%d_%H-%M-%S')}-{os.getpid()}.jsonl"
        os.environ[LIST] = str((Path(home(config.outputs)) / "sweeps" / name).absolute())
        os.environ[OWNER] = me()
        os.environ.pop(GROUP, None)
        if "basic_launcher" not in config.hydra.launcher._target_:
            interrupt.shield_children()

    def on_multirun_end(self, config: DictConfig, **_: object) -> None:
        rows, path = list(map(ended, standing())), Path(os.environ[LIST])
        outputs, problems = Path(home(config.outputs)), 0
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
        if stopped:  # a worker was asked to stop, and nobody else
            print(f"\n{len(left)} of {len(rows)} cells were interrupted or not started; the same command goes on there")
        elif left:
            print(f"\n{len(left)} of {len(rows)} cells were not started: fail_fast=true")
        if failed:
            print(f"\n{len(failed)} of {len(rows)} cells failed; the same command retries only those")
        if failed or problems or stopped:
            sys.exit(1)

    def table(self, sweep: Path, outputs: Path, of_teachers: bool) -> bool:
        """Print the table of the cells that are done; False if it cannot be made (Hydra would go on as if it were)."""
        from dfkd.report import report_of_sweep
        from dfkd.report.teachers import report_of_teachers

        try:
            write = report_of_teachers if of_teachers else report_of_sweep
            print(write(sweep, outputs / "reports"))
            return True
        except Exception as error:
            print(f"\nthe cells are done, but there is no table of them: {explain(error)}")
            return False
