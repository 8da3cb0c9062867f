"""Where metrics go: the console, a JSONL file in the run folder, and Weights & Biases."""

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
# Of W&B, where its own variables (WANDB_SILENT, ...) do not say otherwise.
SETTINGS = {"silent": True, "console": "off", "disable_git": True, "init_timeout": 60}


class Tracker:
    """Writes metrics to `metrics.jsonl` and keeps pictures as files."""

    file: TextIO | None = None

    def start(self, folder: Path, cell: str, config: dict, group: str | None = None) -> None:
        """A run begins.

        Args:
            folder: the run folder.
            cell: readable name of the cell.
            config: the resolved configuration.
            group: what ties the runs of a sweep together.
        """
        self.file = (folder / "metrics.jsonl").open("w")

    def log(self, row: dict) -> None:
        """One row of metrics: {"stage": ..., "step": ..., name: number}."""
        self.file.write(json.dumps(row) + "\n")
        self.file.flush()

    def image(self, name: str, path: Path) -> None:
        """Take a picture that was made; a tracker of files has it already."""

    def finish(self, result: dict | None) -> None:
        """The run is over, perhaps before it began; result is None if it failed."""
        if self.file is not None:
            self.file.close()

    def give_up(self) -> None:
        """Something here has failed: from now on leave out what is not needed for the files."""


class Guarded(Tracker):
    """A tracker whose failures cost no result. The first one is a warning; the tracker is asked to give up what has
    failed, and the run goes on.

    Args:
        tracker: whose methods are called.
    """

    def __init__(self, tracker: Tracker):
        self.tracker, self.has_warned = tracker, False

    def start(self, folder: Path, cell: str, config: dict, group: str | None = None) -> None:
        """See `Tracker`.

        Raises:
            ConfigError: the tracker cannot do what it was asked for. Nothing was computed yet.
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
                said = "the tracker has failed in %s (%s: %s): the run goes on, its metrics stay in its run folder"
                log.warning(f"  WARNING  {said}", name, type(error).__name__, error)
            self.has_warned = True
            with contextlib.suppress(Exception):
                self.tracker.give_up()


def read_rows(path: Path) -> list[dict]:
    """The rows of a JSONL file; none where it cannot be read, and without lines cut short by a crash or still being
    written."""
    rows, text = [], ""
    with contextlib.suppress(OSError):
        text = path.read_text(errors="replace")
    for line in text.splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            rows.append(json.loads(line))
    return [row for row in rows if isinstance(row, dict)]


def is_installed(package: str) -> bool:
    """Whether a package can be imported, without doing it."""
    if package in sys.modules:
        return sys.modules[package] is not None
    return importlib.util.find_spec(package) is not None


class WandB(Tracker):
    """The same to Weights & Biases: one run per cell, with the cell's hash as its stable id.

    Args:
        project: W&B project.
        mode: 'offline' (files in the run folder, or in WANDB_DIR, for `wandb sync`), 'online', or 'disabled' (nothing
            of W&B is even imported).
        group: name that ties runs together; None for WANDB_RUN_GROUP, or a sweep's own name in a sweep.

    Raises:
        ValueError: mode is another word, or W&B is not installed and mode is not 'disabled'.
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
        """Open the W&B run.

        Raises:
            ConfigError: W&B knows nobody here to log in for 'online'.
            Exception: whatever else W&B raises where it cannot start (no network).
        """
        super().start(folder, cell, config, group)
        if self.mode == "disabled":
            return
        import wandb

        run_id, place = cell.rsplit("-", 1)[-1], Path(os.environ.get("WANDB_DIR") or folder)
        for earlier in (place / "wandb").glob(f"offline-run-*-{run_id}"):  # an attempt that failed: this one logs all
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
                dir=str(place),
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
            if stage not in self.stages:  # by its own steps: what a resumed run logs again falls on what is there
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
        """Log to the files alone, and let W&B start its process anew for the next run."""
        import wandb

        self.run = None
        wandb.teardown()
