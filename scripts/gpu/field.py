"""Half 2, "the field's table": CIFAR-10 students of all synthesizers beside each other, and a backdoored teacher."""

import functools
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from dfkd.config.cell import Cell
from dfkd.main import CONF
from gpu import about, clock, compose, record

# Seconds of an H100 for a student of a short preset, on average over the methods: 200 of steps of 7.2 ms, and
# what a process adds; nine beside each other needed more than twice that.
STUDENT = 300.0
LOSS = 1.2  # by cells that take turns on the card
# Seconds of a group that its share does not lower: the teacher, and what its processes take to start and to end.
FIXED = {"plain": 130.0, "trapped": 65.0}
MEMORY = 14 * 2**30  # bytes of a card for a cell; CMI took 12.8 GiB of an H100, its CUDA graphs included
# Cells at once: enough that one computes while another starts and evaluates. They take turns on the card, so that more
# of them are no faster: of nine at once, 14 cells of ResNet-34 -> ResNet-18, one was finished after seven minutes.
MOST = 3
SHARE_OF_FIRST = 0.75  # of the time, for the students without a trap
# Methods with a product of sizes, each of which is lowered by the root of the scale. The student's steps a round belong
# to it, so that a pool of some rounds remains.
PRODUCTS = ("fast", "nayer", "cmi", "adaptive_deepinversion", "deepinversion")
TRAP = (
    "ntl_scenario=backdoor",
    "trigger@ntl_scenario.trigger=badnet_sq",
    "teacher=backdoor",
    "teacher.poison_rate=0.1",
)
DEFENSES = ("none", "atesc")
TRAP_TEACHER = ("teacher.epochs=14", "teacher.recipe.batch_size=512", "teacher.augment=black_crop_flip")
NETWORKS = "networks=resnet34_resnet18"
TOY = (
    *("data.size=16", "data.channels=3", "data.limit=200", "debug=smoke", "+limit.batch_size=20", "+limit.images=40"),
    *("+limit.width=8", "+limit.noise=8", "runtime.threads=1", "networks=cnn_bn_cnn_bn"),
)


def methods() -> list[str]:
    """Return the synthesizers with a short preset."""
    return sorted(file.parent.name for file in CONF.glob("experiment/*/cifar10_short.yaml"))


def scale(seconds: float, cells: int, fixed: float) -> float:
    """Return the share of the short presets that fits, in two digits; between 0.001 and 1.

    Args:
        seconds: the time of a group of cells.
        fixed: how many of them no share lowers.
    """
    return float(f"{min(1.0, max(1e-3, (seconds - fixed) / (cells * STUDENT * LOSS))):.2g}")


def scaled(method: str, share: float) -> Iterator[str]:
    """Yield the options that lower the sizes of a short preset to a share of its steps."""
    config = compose.cell(f"experiment={method}/cifar10_short").config
    factor = share**0.5 if method in PRODUCTS else share
    for name, size in config["sizes"][method].items():
        if (method, name) != ("cake", "epochs"):  # passes over a pool that is smaller already
            yield f"sizes.{method}.{name}={max(2 if name == 'rounds' else 1, round(size * factor))}"
    if method in PRODUCTS and config["student"]["steps"]:
        yield f"student.steps={max(1, round(config['student']['steps'] * factor))}"


@dataclass(frozen=True)
class Group:
    """Cells of one sweep, which share a teacher.

    Attributes:
        rows: {name of a row: options that only this cell has}.
        shared: options of all of them.
    """

    rows: dict[str, list[str]]
    shared: list[str]

    def cells(self) -> dict[str, Cell]:
        return {name: compose.cell(*own, *self.shared) for name, own in self.rows.items()}

    def command(self, name: str) -> list[str]:
        return [sys.executable, "-m", "dfkd", *self.rows[name], *self.shared]


def groups(shared: list[str], shares: dict[str, float]) -> list[Group]:
    """Return the students without a trap, and those of a backdoored teacher.

    Args:
        shares: of the steps of the short presets, for both groups (the names of FIXED).
    """
    plain = {method: [f"experiment={method}/cifar10_short", *scaled(method, shares["plain"])] for method in methods()}
    trapped = ["experiment=dfq/cifar10_short", *scaled("dfq", shares["trapped"]), *TRAP, *TRAP_TEACHER]
    return [
        Group(plain, shared),
        Group({f"dfq, backdoor, {name}": [*trapped, f"defense={name}"] for name in DEFENSES}, shared),
    ]


@functools.cache
def recipes() -> dict[str, Cell]:
    """Return {row: cell of the whole recipe} for all rows of the table."""
    plain = {method: compose.cell(f"experiment={method}/cifar10", NETWORKS) for method in methods()}
    trapped = ["experiment=dfq/cifar10", NETWORKS, *TRAP]
    return plain | {f"dfq, backdoor, {name}": compose.cell(*trapped, f"defense={name}") for name in DEFENSES}


def jobs(device: str) -> int:
    """Return how many cells a device holds at once."""
    if not device.startswith("cuda"):
        return 1
    return min(MOST, max(1, int(torch.cuda.mem_get_info(torch.device(device))[0] // MEMORY)))


def run(
    device: str, deadline: clock.Deadline, out: Path, measured: Path, data: list[str], toy: bool = False
) -> list[Cell]:
    """Compute all cells until the deadline, and write a record of each that is finished into `measured`.

    The same call goes on with what is not finished: stages are kept under `out`, half-done ones with their state.

    Args:
        data: options that choose CIFAR-10.

    Returns:
        the cells that share the teacher without a trap.
    """
    plan = about.read(out / "plan.json")  # a second call has to make the same cells
    if plan is None:
        seconds = SHARE_OF_FIRST * deadline.left, (1 - SHARE_OF_FIRST) * deadline.left
        cells = len(methods()), len(DEFENSES)
        sizes = zip(FIXED.items(), seconds, cells, strict=True)
        plan = {name: scale(time, count, fixed) for (name, fixed), time, count in sizes}
    about.write(out / "plan.json", plan)
    shared = [*data, *(TOY if toy else [NETWORKS]), f"runtime.device={device}", f"outputs={out}"]
    both = groups([*shared, "tracker=files", "evaluate.checks=4"], plan)
    ends = clock.Deadline(deadline.left * SHARE_OF_FIRST), deadline
    try:
        for group, end in zip(both, ends, strict=True):
            _compute(group, jobs(device), end)
    finally:
        for name, cell in (pair for group in both for pair in group.cells().items()):
            if content := record.of(cell, recipes()[name], about.machine(device)):
                about.write(measured / f"{record.file_name(name)}.json", {"row": name} | content)
    return list(both[0].cells().values())


def _compute(group: Group, jobs: int, deadline: clock.Deadline) -> None:
    """Run the cells of a group that are not finished, `jobs` at once, and stop them before the deadline."""
    todo = [name for name, cell in group.cells().items() if cell.finished_result() is None]
    running: list[clock.Command] = []
    try:
        while (todo or running) and deadline.left > clock.GRACE:
            while todo and len(running) < jobs:
                running.append(clock.Command(group.command(todo.pop(0))))
            running = [command for command in running if command.alive(wait=0.2)]
    finally:
        clock.stop(running, deadline)
