"""Continual learning without the old data: a chain of tasks, each learner distilled from the last one.

    python scripts/continual.py --methods dfq,cake,nothing,joint --seeds 0,1,2 --out outputs
    python scripts/continual.py --rounds 1/3                                    a third of what the presets synthesise
    python scripts/continual.py --of mnist data.root=DIR teacher.epochs=10      more options of dfkd, for every cell

The ten classes of a domain arrive in five tasks of two (`dfkd.domains.increment`). A learner sees real images of its
own two classes, and of the earlier ones synthetic images made from the last learner (`dfkd.teachers.Incremental`).

A method is a synthesizer with its preset for the domain, conf/experiment/METHOD/DOMAIN.yaml, or one of the bounds:
`nothing` (fine-tuning, the lower one) and `joint` (the training images of all tasks so far stay, the upper one). Every
task is a cell of dfkd in --out, so that the same command goes on where it was stopped, and repeats nothing that is in
the store. A chain whose images or learner diverge ends there; the others go on, and the exit status is 1.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from statistics import fmean, stdev

from hydra.errors import HydraException

from dfkd.config.cell import Cell
from dfkd.config.messages import explain
from dfkd.errors import ConfigError, DivergedTeacher, NonFiniteLoss
from dfkd.machine.environment import prepare_environment
from dfkd.sweeps.compose import composed

TASKS = 5
SIZE = 2  # classes of a task
BOUNDS = ("nothing", "joint")
IMAGES = 2000  # of an online synthesizer, kept for the next learner


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--of", default="digits", help="a domain of ten classes")
    parser.add_argument("--methods", default="dfq,cake,nayer,noise_images,nothing,joint")
    parser.add_argument("--seeds", default="0", help="such as 0,1,2")
    parser.add_argument("--rounds", type=share, default=1, help="share of every preset's rounds, such as 1/3")
    parser.add_argument("--out", type=Path, default=Path("outputs"))
    given, options = parser.parse_known_args(words)
    try:
        prepare_environment()
        diverged = learn(given, options)
    except (ConfigError, HydraException) as error:
        sys.exit(f"continual: {explain(error)}")
    if diverged:
        sys.exit("\n".join(diverged))


def learn(given: argparse.Namespace, options: Sequence[str]) -> list[str]:
    """Run the chains of all methods and seeds, print a line for each method, and write continual.json.

    Returns:
        a line for every chain that diverged.

    Raises:
        ConfigError, HydraException: a method or an option is wrong.
    """
    table, diverged = {}, []
    for method in given.methods.split(","):
        table[method] = []
        for seed in map(int, given.seeds.split(",")):
            try:
                accuracies = chain(method, given.of, seed, given.out, options, given.rounds)
            except (NonFiniteLoss, DivergedTeacher) as error:
                diverged.append(f"{method}: the chain of seed {seed} has no end: {error}")
                continue
            table[method].append(summary(accuracies) | {"accuracies": accuracies})
        if table[method]:
            print(row(method, table[method]), flush=True)
    (given.out / "continual.json").write_text(json.dumps(table, indent=2) + "\n")
    return diverged


def share(text: str) -> Fraction:
    """Read a share such as 1/3 or 0.5.

    Raises:
        argparse.ArgumentTypeError: it is no number above 0 and at most 1.
    """
    try:
        number = Fraction(text)
    except (ValueError, ZeroDivisionError):
        number = Fraction(0)
    if not 0 < number <= 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no share above 0 and at most 1, such as 1/3")
    return number


def chain(
    method: str, of: str, seed: int, out: Path, options: Sequence[str], rounds: Fraction | float = 1
) -> list[list[float]]:
    """Run the cells of one chain; return in row t the accuracies (percent) of the learner of task t on tasks 0 .. t.

    Args:
        rounds: share of the preset's rounds, in (0, 1].
    """
    rows, files = [], []
    for task in range(TASKS):
        cell = cell_of(method, of, task, seed, out, [*options, *files], rounds)
        result = run(cell)
        rows.append([result["teacher"][f"task_{k}"] for k in range(task + 1)])
        files = [] if method == "joint" else next_files(cell, result)
    return rows


def cell_of(
    method: str, of: str, task: int, seed: int, out: Path, options: Sequence[str], rounds: Fraction | float = 1
) -> Cell:
    """Return the cell of one task. `options` has the files of the last learner; `rounds` as in `chain`."""
    preset = [] if method in BOUNDS else [f"experiment={method}/{of}"]
    words = [
        *("domain@ntl_scenario.id=increment", f"domain@ntl_scenario.id.of={of}", "teacher=incremental", *preset),
        *(f"ntl_scenario.id.task={task}", f"ntl_scenario.id.joint={str(method == 'joint').lower()}", f"seed={seed}"),
        *("metrics=tasks", "tracker=files", f"student.samples={IMAGES}", f"outputs={out}", *options),
    ]
    cfg = composed(*words)
    cfg.until = "judgement"
    if preset and task < TASKS - 1:  # the last learner has no successor that needs images
        cfg.until = "student" if cfg.student.epochs is None else "pool"
    for key in ("rounds", "warm_up") if preset else ():
        if cfg.synthesizer.get(key):
            cfg.synthesizer[key] = max(1, round(rounds * cfg.synthesizer[key]))
    if "groups" in cfg.synthesizer:  # CAKE's images of a row are of different classes, and rows fill a batch
        most, batch = min(cfg.synthesizer.groups, SIZE * (task + 1)), cfg.synthesizer.batch_size
        cfg.synthesizer.groups = next(groups for groups in range(most, 0, -1) if batch % groups == 0)
    return Cell(cfg)


def run(cell: Cell) -> dict:
    """Return the result of a cell, which is run unless it is finished."""
    from dfkd.run.run_cell import run_cell  # imports torch, for which a finished cell does not ask

    return cell.finished_result() or run_cell(cell, quiet=True)


def next_files(cell: Cell, result: dict) -> list[str]:
    """Return the options that name the files of a finished cell for the learner of the next task."""
    stages, store = result["stages"], cell.outputs.resolve() / "store"
    files = [f"teacher.last_path={store / 'teacher' / stages['teacher']['key'] / 'teacher.safetensors'}"]
    for stage, name in (("pool", "pool.safetensors"), ("student", "samples.safetensors")):
        if stage == cell.config["until"]:
            files.append(f"teacher.memory_path={store / stage / stages[stage]['key'] / name}")
    return files


def summary(rows: list[list[float]]) -> dict[str, float | list[float]]:
    """Return what a chain comes to.

    Args:
        rows: rows[t][k] is the accuracy on task k of the learner of task t, k <= t.

    Returns:
        average: mean accuracy of the last learner over the tasks.
        forgetting: of every task but the last, the best earlier accuracy minus that of the last learner (Chaudhry et
            al., ECCV 2018, arXiv 1801.10112, eq. 3).
        mean_forgetting: their mean.
    """
    last = rows[-1]
    forgetting = [max(row[k] for row in rows[k:-1]) - last[k] for k in range(len(last) - 1)]
    return {"average": fmean(last), "forgetting": forgetting, "mean_forgetting": fmean(forgetting)}


def row(method: str, chains: list[dict]) -> str:
    """Return a line of the table: mean and standard deviation over seeds."""
    cells = [spread([one[key] for one in chains]) for key in ("average", "mean_forgetting")]
    tasks = [f"{fmean(one['forgetting'][k] for one in chains):.1f}" for k in range(TASKS - 1)]
    return f"{method}: accuracy {cells[0]}, forgetting {cells[1]} (by task: {', '.join(tasks)}), n = {len(chains)}"


def spread(values: list[float]) -> str:
    return f"{fmean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


if __name__ == "__main__":
    main()
