"""The entrypoint: `dfkd` and `python -m dfkd`. torch is imported only once there is something to compute."""

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
from dfkd.config.arguments import arranged
from dfkd.config.cell import Cell, replicas
from dfkd.config.messages import explain
from dfkd.config.paths import CONF, CONFIG
from dfkd.errors import ConfigError, NotTogether
from dfkd.machine import distributed, interrupt
from dfkd.machine.environment import settle
from dfkd.metrics import TABLE, own_metrics
from dfkd.store.run_folder import RunFolder, is_checkable
from dfkd.store.store import Store
from dfkd.sweeps import ledger
from dfkd.sweeps.console import start_logging
from dfkd.sweeps.dry_run import plan
from dfkd.sweeps.plan import plan_in_words
from dfkd.sweeps.presets import axes

log = logging.getLogger("dfkd")
INTERRUPTED = "interrupted: what is done is kept, the same command goes on from there"
UNCHECKED = "(by an older dfkd that kept no checksums: it cannot be checked)"


class Failed(BaseException):
    """Carries the failure of a run through Hydra, which would print its own version of an Exception."""

    def __init__(self, error: Exception):
        self.error = error


@hydra.main(version_base="1.3", config_path=str(CONF), config_name=CONFIG)
def task(cfg: DictConfig) -> float | None:
    """Run one cell. Returns the student's last validation accuracy on ID images (never a test score), None if there is
    no student or it failed: in a sweep the other cells go on (unless fail_fast=true), and its end lists
    the failures."""
    start_logging()
    return interrupt.as_worker(lambda: run_one(cfg)) if ledger.in_a_worker() else run_one(cfg)


def run_one(cfg: DictConfig) -> float | None:
    """See `task`. Of several replicas the score is the first one's.

    Raises:
        Failed: the first failure, unless this is a cell of a sweep, whose list has noted it.
    """
    cells, scores, failures = [], [], []
    with noting(None, failures):
        check_axes()
        cells = replicas(cfg)
    together = True
    for i, cell in enumerate(cells):
        with noting(cell, failures):
            others = cells[i + 1 :] if together else []
            try:
                scores.append(run_replica(cell, others))
            except NotTogether as error:
                log.warning("  WARNING  the students of %d cells are trained in turn: %s", len(others) + 1, error)
                together = False
                scores.append(run_replica(cell, []))
        if failures and isinstance(failures[-1], ConfigError) and not in_a_sweep():
            break  # the others have the same mistake
    if failures and not in_a_sweep():
        raise Failed(failures[0])
    return scores[0] if scores else None


def run_replica(cell: Cell, others: list[Cell]) -> float | None:
    """Run a cell.

    Args:
        others: its replicas that come after it.
    """
    if cell.config["fail_fast"] and ledger.has_failed():
        return None
    distributed.start()
    result = distributed.by_first(cell.finished)
    if cell.config["dry_run"]:
        return show_plan(cell, result) if distributed.is_first() else None
    log.info("%s%s", cell.name, before(cell, result))
    if result is None:
        ledger.record(cell, "running", **ledger.place())
        from dfkd.run.run_cell import run_cell

        left = distributed.by_first(lambda: [other.finished() is None for other in others])
        siblings, group = list(itertools.compress(others, left)), os.environ.get(ledger.GROUP)
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
    """What to say behind a cell's name of an earlier run of it."""
    if result is not None:
        return " was finished before" + ("" if is_checkable(result) else f" {UNCHECKED}")
    damage = RunFolder(cell.folder).damage()
    return f" was finished before, but {damage}: it is made again" if damage else ""


@contextlib.contextmanager
def noting(cell: Cell | None, failures: list[Exception]) -> Iterator[None]:
    """Note in the sweep's list and in `failures` what went wrong with a cell inside the block, and go on after it."""
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
    """Raise ConfigError if one cell of an ablation was asked for without saying which, if a size is not there, or if an
    option of the user's own is never read."""
    hydra = HydraConfig.get()
    own_options.check_files(hydra.runtime.config_sources)
    given = [hydra.sweeper.get(key) for key in ("params", "small", "size")]
    keys = axes(*given) if given[2] else {}  # another sweeper than ours has no sizes
    chosen = {word.partition("=")[0] for word in hydra.overrides.task}
    left = [key for key in keys if key not in chosen]
    ablation = hydra.runtime.choices.get("ablation")
    if ablation and left:
        raise ConfigError(
            f"ablation={ablation} is many cells: dfkd -m ablation={ablation} ...; for one, set {', '.join(left)}"
        )


def show_plan(cell: Cell, result: dict | None) -> None:
    """Say what a run of this cell would do; in a sweep, only note it: its end shows the plan of all cells."""
    row = plan(cell) if result is None else {"status": "done"}
    ledger.record(cell, **row)
    if ledger.LIST not in os.environ:
        print(plan_in_words([row | {"number": 0, "folder": str(cell.folder)}], Store(cell.outputs / "store")))


def in_a_line(result: dict) -> str:
    """What came out, for the console: the student beside its teacher, or a teacher alone, on test images."""
    student, teacher = result.get("student"), result["teacher"]
    who, values = ("student (teacher)", student) if student else ("teacher", teacher)
    percents, others = [], []
    for metric in (*TABLE, *own_metrics([result.get("config", {})])):
        if not metric.headline or values.get(metric.key) is None:
            continue
        said = f"{metric.label} {metric.written(values[metric.key])}"
        if student and teacher.get(metric.key) is not None:
            said += f" ({metric.written(teacher[metric.key])})"
        (percents if metric.form == "percent" else others).append(said)
    return "; ".join([f"{who}, in percent: {', '.join(percents)}", *others])


def cli() -> None:
    """Console script: Hydra's own command line, with one clear message for every mistake."""
    sys.argv[1:] = arranged(sys.argv[1:])
    if {"--help", "-h"} & set(sys.argv[1:]):  # Hydra's own takes a second to collect the options
        return print(help_text(CONF, sys.argv[1:]))
    sys.path.append(os.getcwd())  # components of the user's own, beside where the command is given
    # Idle threads of torch's OpenMP spin 30 times longer by default: nothing gained alone on the machine, and two runs
    # beside each other then hold each other up tenfold.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands errors on instead of printing them its own way
    try:
        with interrupt.listening(ledger.stop_workers), distributed.failing_together():
            settle()
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
    """Raise ConfigError if several ranks are given a sweep."""
    if distributed.ranks() > 1 and any(word in ("-m", "--multirun", "hydra.mode=MULTIRUN") for word in words):
        raise ConfigError(
            f"torchrun gives all of its {distributed.ranks()} processes to one cell, and this is a sweep: start it "
            f"without torchrun (dfkd -m hydra/launcher=gpus ... runs a cell on each GPU), or name one cell without -m"
        )
