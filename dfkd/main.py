"""The entrypoint: `dfkd` and `python -m dfkd`. torch is imported only once there is something to compute."""

import contextlib
import itertools
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from dfkd.cell import Cell, replicas
from dfkd.errors import ConfigError, NotTogether
from dfkd.help import help_text, option_names
from dfkd.machine import distributed
from dfkd.report import paper
from dfkd.resume import interrupt
from dfkd.store import Store
from dfkd.sweeps.plan import plan_in_words
from dfkd.sweeps.sweep import LIST, axes, has_failed, in_a_worker, number, place, record, stop_workers

log = logging.getLogger("dfkd")
PACKAGE = Path(__file__).resolve().parent
# conf/ lies inside an installed package and at the top of a checkout.
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"
CONFIG = "config"  # the file in it where everything starts

EXTRAS = {  # the beginnings of options that a plugin brings: who needs them, and the extra that has the plugin
    "hydra/launcher/submitit_": ("hydra/launcher=slurm and slurm_local need", "slurm"),
    "hydra/sweeper/sampler/": ("hydra/sweeper=optuna needs", "optuna"),
}
INTERRUPTED = "interrupted: what is done is kept, the same command goes on from there"
failures: list[Exception] = []  # of this process; Hydra would print its own version of a raised one


@hydra.main(version_base="1.3", config_path=str(CONF), config_name=CONFIG)
def task(cfg: DictConfig) -> float | None:
    """Run one cell. Returns the student's last validation accuracy on ID images (never a test score), None if there is
    no student or it failed: in a sweep the other cells go on (unless fail_fast=true), and its end lists
    the failures."""
    start_logging()
    return interrupt.as_worker(lambda: run_one(cfg)) if in_a_worker() else run_one(cfg)


def run_one(cfg: DictConfig) -> float | None:
    """See `task`. Of several replicas the score is the first one's."""
    cells, scores = [], []
    with noting(None):
        check_axes()
        cells = replicas(cfg)
    together = True
    for i, cell in enumerate(cells):
        with noting(cell):
            others = cells[i + 1 :] if together else []
            try:
                scores.append(run_replica(cell, others))
            except NotTogether as error:
                log.warning("  WARNING  the students of %d cells are trained in turn: %s", len(others) + 1, error)
                together = False
                scores.append(run_replica(cell, []))
        if failures and isinstance(failures[-1], ConfigError) and not in_a_sweep():
            break  # the others have the same mistake
    return scores[0] if scores else None


def run_replica(cell: Cell, others: list[Cell]) -> float | None:
    """Run a cell.

    Args:
        others: its replicas that come after it.
    """
    if cell.config["fail_fast"] and has_failed():
        return None
    distributed.start()
    result = distributed.by_first(cell.finished)
    if cell.config["dry_run"]:
        return show_plan(cell, result) if distributed.is_first() else None
    log.info("%s%s", cell.name, " was finished before" if result else "")
    if result is None:
        record(cell, "running", **place())
        from dfkd.run import run_cell

        left = distributed.by_first(lambda: [other.finished() is None for other in others])
        result = run_cell(cell, list(itertools.compress(others, left)))
    elif distributed.is_first():
        paper.renew(cell, result)
    if not distributed.is_first():
        return None
    record(cell, "done")
    log.info("  %s", in_a_line(result))
    log.info("  %s", cell.folder)
    return result["validation"]["iacc"] if "validation" in result else None


@contextlib.contextmanager
def noting(cell: Cell | None) -> Iterator[None]:
    """Note in the sweep's list what went wrong with a cell inside the block, and go on after it."""
    try:
        yield
    except KeyboardInterrupt:
        record(cell, "interrupted")
        raise
    except Exception as error:
        failures.append(error)
        record(cell, "failed", error=explain(error))
        one_of_many = cell and cell.config["student"].get("replicas", 1) > 1 and not isinstance(error, ConfigError)
        if in_a_sweep() or one_of_many:
            log.error("  FAILED   %s", explain(error))


def in_a_sweep() -> bool:
    return HydraConfig.get().mode.name == "MULTIRUN"


def check_axes() -> None:
    """Raise ConfigError if one cell of an ablation was asked for without saying which, or a size that is not there."""
    hydra = HydraConfig.get()
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
    row = {"status": "done"}
    if result is None:
        from dfkd.graph import stage_graph
        from dfkd.preflight import prepare

        parts = prepare(cell)
        for warning in parts.warnings:
            log.warning("  WARNING  %s", warning)
        row = {"status": "planned", "stages": {name: stage.key for name, stage in stage_graph(cell, parts).items()}}
    record(cell, **row)
    if LIST not in os.environ:
        print(plan_in_words([row | {"number": 0, "folder": str(cell.folder)}], Store(cell.outputs / "store")))


def in_a_line(result: dict) -> str:
    """What came out, for the console: the student beside its teacher, or a teacher alone, on test images."""
    words = {"iacc": "ID accuracy", "oacc": "OOD accuracy", "olacc": "taught OOD label", "asr": "attack success"}
    student, teacher = result.get("student"), result["teacher"]
    if student is None:
        alone = [f"{word} {teacher[key]:.1f}" for key, word in words.items() if teacher[key] is not None]
        return f"teacher, in percent: {', '.join(alone)}"
    parts = [
        f"{word} {student[key]:.1f} ({teacher[key]:.1f})" for key, word in words.items() if student[key] is not None
    ]
    return f"student (teacher), in percent: {', '.join(parts)}"


def start_logging() -> None:
    """Messages to standard error, one line each; of cells beside each other with the cell's number in the sweep. Of
    several ranks only the first has any."""
    if not log.handlers:
        log.addHandler(logging.StreamHandler())
        log.setLevel(logging.INFO if distributed.is_first() else logging.CRITICAL)
        log.propagate = False
    prefix = f"[{number()}] " if in_a_worker() else ""
    if prefix and sys.stderr.isatty():
        prefix = f"\r\033[K{prefix}"  # over the line that says how far the sweep is
    log.handlers[0].setFormatter(logging.Formatter(f"{prefix}%(message)s"))


def cli() -> None:
    """Console script: Hydra's own command line, with one clear message for every mistake."""
    if {"--help", "-h"} & set(sys.argv[1:]):  # Hydra's own takes a second to collect the options
        return print(help_text(CONF, sys.argv[1:]))
    # Hydra wants overrides in one piece: `dfkd seed=0,1 -m defense=none,atesc` too should be a sweep
    sys.argv[1:] = sorted(sys.argv[1:], key=lambda word: word not in ("-m", "--multirun"))
    sys.path.append(os.getcwd())  # components of the user's own, beside where the command is given
    # Idle threads of torch's OpenMP spin 30 times longer by default: nothing gained alone on the machine, and two runs
    # beside each other then hold each other up tenfold.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands errors on instead of printing them its own way
    try:
        with interrupt.listening(stop_workers), distributed.failing_together():
            check_alone(sys.argv[1:])
            task()
            if failures:
                raise failures[0]
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


def explain(error: Exception) -> str:
    """One clear message for an error."""
    from dfkd.build import nearest

    if isinstance(error, ConfigError):
        return str(error)
    if isinstance(error, MissingConfigException):
        file = error.missing_cfg_file or ""  # of an option in a folder of its group, Hydra knows no others
        group, _, option = file.rpartition("/") if error.options else file.partition("/")
        options = sorted({*(error.options or ()), *option_names(group, [CONF])})
        for beginning, (who, extra) in EXTRAS.items():
            if file.startswith(beginning) and not error.options:
                return f"{who} an extra: pip install 'dfkd[{extra}]'"
        if options:
            return f"{group} has no option '{option}'{nearest(option, options)}\n(options: {', '.join(options)})"
    if isinstance(error, HydraException | OmegaConfBaseException):
        return explain_override(error)
    if "Config group override must be" in str(error):  # Hydra does not say which
        return "a group takes the name of one of its options, not null or a number; `dfkd --help` lists them"
    if "No space left on device" in str(error):
        return "the disk is full; what is finished is kept: free some space and repeat the command, or set outputs=DIR"
    return f"{type(error).__name__}: {error}\n(HYDRA_FULL_ERROR=1 shows the traceback)"


def explain_override(error: Exception) -> str:
    """Hydra's message about an override, with the nearest valid key where a key is unknown."""
    from dfkd.build import nearest

    cause = error.__cause__
    key, parent = getattr(cause, "full_key", None), getattr(cause, "parent_node", None)
    lines = str(error).splitlines()
    if any("full_key: hydra.sweeper." in line for line in lines):
        return "the axes of this experiment or ablation are for hydra/sweeper=cells (the default) or optuna: choose one"
    text = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    if key and parent is not None and hasattr(parent, "keys"):
        last = str(key).rpartition(".")[2]
        return f"there is no '{key}'{nearest(last, [str(k) for k in parent])}"
    return text
