"""The entry point of `dfkd` and `python -m dfkd`. torch is imported only when a cell must be computed."""

import contextlib
import itertools
import logging
import os
import sys
from collections.abc import Iterator

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from dfkd.cli.help import help_text
from dfkd.config import own_options, paper
from dfkd.config.arguments import hydra_order
from dfkd.config.cell import Cell, cells_of
from dfkd.config.messages import explain
from dfkd.config.paths import CONF, CONFIG
from dfkd.errors import CannotTrainTogether, ConfigError
from dfkd.machine import distributed, interrupt
from dfkd.machine.environment import prepare_environment
from dfkd.metrics import TABLE, own_metrics
from dfkd.store.run_folder import RunFolder, is_checkable
from dfkd.store.store import Store
from dfkd.sweeps import ledger
from dfkd.sweeps.console import start_logging
from dfkd.sweeps.dry_run import plan
from dfkd.sweeps.plan import plan_in_words
from dfkd.sweeps.presets import axes, grids

log = logging.getLogger("dfkd")
INTERRUPTED = "interrupted: what is done is kept, the same command goes on from there"
UNCHECKED = "(by an older dfkd that kept no checksums: it cannot be checked)"


class Failed(BaseException):
    """Carries the exception of a failed run through Hydra, which would print an `Exception` in its own form."""

    def __init__(self, error: Exception):
        self.error = error


@hydra.main(version_base="1.3", config_path=str(CONF), config_name=CONFIG)
def task(cfg: DictConfig) -> float | None:
    """Run one cell of a configuration, or `student.replicas` of them.

    In a sweep, a cell that fails does not stop the others (unless fail_fast=true); the failures are listed at the end.

    Returns:
        the student's last validation accuracy on ID images in percent (never a test score); None if there is no
        student, or if the cell failed.
    """
    start_logging()
    return interrupt.as_worker(lambda: run_one(cfg)) if ledger.in_a_worker() else run_one(cfg)


def run_one(cfg: DictConfig) -> float | None:
    """See `task`. With several siblings the returned accuracy is that of the first successful one.

    Raises:
        Failed: the first failure of a cell; not in a sweep, whose list holds the failures.
    """
    cells, scores, failures = [], [], []
    with noting(None, failures):
        check_axes()
        cells = cells_of(cfg)
    together = True
    for i, cell in enumerate(cells):
        with noting(cell, failures):
            others = cells[i + 1 :] if together else []
            try:
                scores.append(run_or_reuse(cell, others))
            except CannotTrainTogether as error:
                log.warning("  WARNING  the students of %d cells are trained in turn: %s", len(others) + 1, error)
                together = False
                scores.append(run_or_reuse(cell, []))
        if failures and isinstance(failures[-1], ConfigError) and not in_a_sweep():
            break  # its siblings have the same mistake in their configuration
    if failures and not in_a_sweep():
        raise Failed(failures[0])
    return scores[0] if scores else None


def run_or_reuse(cell: Cell, others: list[Cell]) -> float | None:
    """Run one cell unless it is finished, and log its result; with dry_run=true, show what would be done.

    Args:
        others: the siblings after this one; their students may be trained together with this one.

    Returns:
        the accuracy as in `task`; None on other ranks than the first, with dry_run=true, and after a failure of another
        cell with fail_fast=true.
    """
    if cell.config["fail_fast"] and ledger.has_failed():
        return None
    distributed.start()
    result = distributed.on_first_rank(cell.finished_result)
    if cell.config["dry_run"]:
        return show_plan(cell, result) if distributed.is_first() else None
    log.info("%s%s", cell.name, before(cell, result))
    if result is None:
        ledger.record(cell, "running", **ledger.this_process())
        from dfkd.run.run_cell import run_cell

        left = distributed.on_first_rank(lambda: [other.finished_result() is None for other in others])
        siblings, group = list(itertools.compress(others, left)), ledger.group()
        result = run_cell(cell, siblings, group, quiet=ledger.in_a_worker())
    elif distributed.is_first():
        paper.renew(cell, result)
    if not distributed.is_first():
        return None
    ledger.record(cell, "done")
    log.info("  %s", in_a_line(result))
    log.info("  %s", cell.folder)
    return result["validation"]["iacc"] if "validation" in result else None


def before(cell: Cell, result: dict | None) -> str:
    """Return the text about an earlier run that is logged after a cell's name; '' if there is none."""
    if result is not None:
        return " was finished before" + ("" if is_checkable(result) else f" {UNCHECKED}")
    damage = RunFolder(cell.folder).damage()
    return f" was finished before, but {damage}: it is made again" if damage else ""


@contextlib.contextmanager
def noting(cell: Cell | None, failures: list[Exception]) -> Iterator[None]:
    """Record an exception inside the block in the sweep's list and in `failures`, and suppress it. KeyboardInterrupt is
    recorded in the list, but not suppressed."""
    try:
        yield
    except KeyboardInterrupt:
        ledger.record(cell, "interrupted")
        raise
    except Exception as error:
        failures.append(error)
        ledger.record(cell, "failed", error=explain(error))
        one_of_many = cell and cell.config["student"].get("replicas", 1) > 1 and not isinstance(error, ConfigError)
        if in_a_sweep() or one_of_many:
            log.error("  FAILED   %s", explain(error))


def in_a_sweep() -> bool:
    return HydraConfig.get().mode.name == "MULTIRUN"


def check_axes() -> None:
    """Raise ConfigError if an ablation is run without `-m` and without a value for each of its axes, if it does not
    have the size that was asked for, or if one of the user's own option files is never read."""
    hydra = HydraConfig.get()
    own_options.check_files(hydra.runtime.config_sources)
    preset = [hydra.sweeper.get(key) for key in ("params", "small", "size")]
    preset_axes = axes(*preset) if preset[2] else {}  # Hydra's own sweepers have no sizes
    set_keys = {word.partition("=")[0] for word in hydra.overrides.task}
    every_grid = grids(preset_axes, hydra.sweeper.get("grids"))
    missing = min(([key for key in grid if key not in set_keys] for grid in every_grid), key=len)  # of the nearest grid
    ablation = hydra.runtime.choices.get("ablation")
    if ablation and missing:
        raise ConfigError(
            f"ablation={ablation} is many cells: dfkd -m ablation={ablation} ...; for one, set {', '.join(missing)}"
        )


def show_plan(cell: Cell, result: dict | None) -> None:
    """Print what a run of this cell would do. In a sweep, only record it in the list: the plan of all cells is printed
    at the end."""
    row = plan(cell) if result is None else {"status": "done"}
    ledger.record(cell, **row)
    if ledger.list_path() is None:
        print(plan_in_words([row | {"number": 0, "folder": str(cell.folder)}], Store(cell.outputs / "store")))


def in_a_line(result: dict) -> str:
    """Return a line for the console with the result on test images: the student with its teacher in parentheses, or the
    teacher alone."""
    student, teacher = result.get("student"), result["teacher"]
    who, values = ("student (teacher)", student) if student else ("teacher", teacher)
    percents, others = [], []
    for metric in (*TABLE, *own_metrics([result.get("config", {})])):
        if not metric.headline or values.get(metric.key) is None:
            continue
        text = f"{metric.label} {metric.format_value(values[metric.key])}"
        if student and teacher.get(metric.key) is not None:
            text += f" ({metric.format_value(teacher[metric.key])})"
        (percents if metric.form == "percent" else others).append(text)
    return "; ".join([f"{who}, in percent: {', '.join(percents)}", *others])


def cli() -> None:
    """The console script `dfkd`: Hydra's command line, with one clear message for every mistake."""
    sys.argv[1:] = hydra_order(sys.argv[1:])
    if {"--help", "-h"} & set(sys.argv[1:]):  # Hydra's own help takes a second to collect the options
        return print(help_text(CONF, sys.argv[1:]))
    sys.path.append(os.getcwd())  # the user's own components are imported from the current folder
    # By default idle threads of torch's OpenMP spin 30 times longer. A run alone on the machine gains nothing from it,
    # and two runs at the same time slow each other down tenfold.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise errors instead of printing them itself
    try:
        with interrupt.listening(ledger.stop_workers), distributed.failing_together():
            prepare_environment()
            check_alone(sys.argv[1:])
            try:
                task()
            except Failed as failed:
                raise failed.error from None
            distributed.stop()
    except KeyboardInterrupt:
        sys.exit(f"\n{INTERRUPTED}" if distributed.is_first() else 1)
    except distributed.FailedElsewhere:
        sys.exit(1)
    except Exception as error:
        if wants_traceback:
            raise
        sys.exit(f"dfkd: {explain(error)}")


def check_alone(words: list[str]) -> None:
    """Raise ConfigError if a sweep is started on several ranks."""
    if distributed.ranks() > 1 and any(word in ("-m", "--multirun", "hydra.mode=MULTIRUN") for word in words):
        raise ConfigError(
            f"torchrun gives all of its {distributed.ranks()} processes to one cell, and this is a sweep: start it "
            f"without torchrun (dfkd -m hydra/launcher=gpus ... runs a cell on each GPU), or name one cell without -m"
        )
