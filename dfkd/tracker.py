"""Trackers record the metrics of a run: in a JSONL file in the run folder, and in Weights & Biases (W&B)."""

import contextlib
import importlib.util
import json
import logging
import os
import shutil
import sys
from pathlib import Path
from typing import TextIO

from dfkd.errors import ConfigError

log = logging.getLogger("dfkd")


MODES = ("offline", "online", "disabled")
# Settings of W&B, unless its environment variables (WANDB_SILENT, ...) set them.
SETTINGS = {"silent": True, "console": "off", "disable_git": True, "init_timeout": 60}


class Tracker:
    """Writes metrics to `metrics.jsonl` in the run folder; figures are files there already."""

    file: TextIO | None = None

    def start(self, folder: Path, cell: str, config: dict, group: str | None = None) -> None:
        """Called when a run begins.

        Args:
            folder: the run folder.
            cell: name of the cell.
            config: the resolved configuration.
            group: name of the group of the sweep's runs.
        """
        self.file = (folder / "metrics.jsonl").open("w")

    def log(self, row: dict) -> None:
        """Record one row of metrics: {"stage": ..., "step": ..., name: number}."""
        self.file.write(json.dumps(row) + "\n")
        self.file.flush()

    def image(self, name: str, path: Path) -> None:
        """Record a figure. This tracker does nothing, since the file is in the run folder already."""

    def finish(self, result: dict | None) -> None:
        """Called when the run ends, also if `start` failed. `result` is None if the run failed."""
        if self.file is not None:
            self.file.close()

    def give_up(self) -> None:
        """Called after a method has failed: from now on, only write the files of the run folder."""


class GuardedTracker(Tracker):
    """Wraps a tracker so that its failures do not stop the run. The first failure is logged as a warning, and after
    each one `give_up` of the tracker is called.

    Args:
        tracker: the tracker whose methods are called.
    """

    def __init__(self, tracker: Tracker):
        self.tracker, self.has_warned = tracker, False

    def start(self, folder: Path, cell: str, config: dict, group: str | None = None) -> None:
        """See `Tracker`.

        Raises:
            ConfigError: the tracker cannot run with its options. Nothing was computed yet.
        """
        self._call("start", folder, cell, config, group)

    def log(self, row: dict) -> None:
        self._call("log", row)

    def image(self, name: str, path: Path) -> None:
        self._call("image", name, path)

    def finish(self, result: dict | None) -> None:
        self._call("finish", result)

    def _call(self, name: str, *arguments: object) -> None:
        try:
            getattr(self.tracker, name)(*arguments)
        except ConfigError:
            raise
        except Exception as error:
            if not self.has_warned:
                text = "the tracker has failed in %s (%s: %s): the run goes on, its metrics stay in its run folder"
                log.warning(f"  WARNING  {text}", name, type(error).__name__, error)
            self.has_warned = True
            with contextlib.suppress(Exception):
                self.tracker.give_up()


def read_rows(path: Path) -> list[dict]:
    """Return the rows of a JSONL file; an empty list if it cannot be read. Incomplete lines (after a crash, or still
    being written) are left out."""
    rows, text = [], ""
    with contextlib.suppress(OSError):
        text = path.read_text(errors="replace")
    for line in text.splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            rows.append(json.loads(line))
    return [row for row in rows if isinstance(row, dict)]


def is_installed(package: str) -> bool:
    """Return whether a package is installed; it is not imported."""
    if package in sys.modules:
        return sys.modules[package] is not None
    return importlib.util.find_spec(package) is not None


class WandB(Tracker):
    """Records a run in `metrics.jsonl` and in Weights & Biases: one W&B run per cell, with the cell's hash as its id.

    Args:
        project: W&B project.
        mode: 'offline' (files in the run folder, or in WANDB_DIR, for `wandb sync`), 'online', or 'disabled' (wandb is
            not imported).
        group: group of the W&B run; None: WANDB_RUN_GROUP, or else the sweep's name if the run is part of a sweep.

    Raises:
        ValueError: mode is unknown, or W&B is not installed and mode is not 'disabled'.
    """

    run = None

    def __init__(self, project: str = "dfkd", mode: str = "offline", group: str | None = None):
        if mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}, got '{mode}' (of tracker.mode or WANDB_MODE)")
        if mode != "disabled" and not is_installed("wandb"):
            raise ValueError(
                f"mode={mode} needs Weights & Biases, which is not installed: pip install wandb, or tracker=files "
                f"(metrics and pictures stay in the run folder)"
            )
        self.project, self.mode, self.group = project, mode, group

    def start(self, folder: Path, cell: str, config: dict, group: str | None = None) -> None:
        """Open metrics.jsonl and the W&B run.

        Raises:
            ConfigError: W&B refuses to start, for instance because the user is not logged in (mode 'online').
            Exception: any other error of W&B, for instance without a network.
        """
        super().start(folder, cell, config, group)
        if self.mode == "disabled":
            return
        import wandb

        run_id, parent = cell.rsplit("-", 1)[-1], Path(os.environ.get("WANDB_DIR") or folder)
        for earlier in (parent / "wandb").glob(f"offline-run-*-{run_id}"):  # a failed attempt: this run logs all again
            shutil.rmtree(earlier)
        settings = {name: value for name, value in SETTINGS.items() if f"WANDB_{name.upper()}" not in os.environ}
        try:
            self.run = wandb.init(
                project=self.project,
                mode=self.mode,
                group=self.group or os.environ.get("WANDB_RUN_GROUP") or group,
                name=cell,
                id=run_id,
                resume="allow" if self.mode == "online" else None,
                dir=str(parent),
                config=config,
                settings=wandb.Settings(**settings),
            )
        except (wandb.errors.UsageError, wandb.errors.AuthenticationError) as error:
            raise ConfigError(
                f"Weights & Biases did not start in mode '{self.mode}': {error}. Log in with `wandb login`, or use "
                f"tracker.mode=offline or tracker.mode=disabled"
            ) from error

        self.stages = set()

    def log(self, row: dict) -> None:
        super().log(row)
        if self.run is not None:
            stage = row["stage"]
            if stage not in self.stages:  # each stage has its own step axis: rows logged again fall on the same points
                self.run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
                self.stages.add(stage)
            self.run.log({f"{stage}/{key}": value for key, value in row.items() if key != "stage"})

    def image(self, name: str, path: Path) -> None:
        if self.run is not None:
            import wandb

            self.run.log({name: wandb.Image(str(path))})

    def finish(self, result: dict | None) -> None:
        super().finish(result)
        if self.run is not None:
            for part in ("teacher", "student") if result else ():
                for name, value in result.get(part, {}).items():
                    self.run.summary[f"{part}/{name}"] = value
            self.run.finish(exit_code=0 if result else 1)
            self.run = None

    def give_up(self) -> None:
        """Log to the files only, and shut down W&B's process, so that the next run can start it again."""
        import wandb

        self.run = None
        wandb.teardown()
