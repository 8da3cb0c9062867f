"""Half 2, teachers: our training beside a plain loop, and how long the short recipe takes."""

import copy
import functools
import statistics
import time
from collections.abc import Iterable

import torch
from benchmark import plain

from dfkd.config.cell import Cell
from dfkd.evaluate import accuracy
from dfkd.machine.runtime import seeded
from dfkd.stages.components import Components
from dfkd.stages.prepare import prepare
from gpu import compose, rows

SEEDS, NEAR = (0, 1), 0.5  # percentage points by which the means over the seeds may differ
EPOCHS, SIZE = 4, 512
BESIDE_PLAIN, SHORT = "teacher=supervised beside a plain loop", "teacher=supervised_fast"  # the names of the rows
FAST = 90.0  # seconds, the goal of teacher=supervised_fast on an H100


def measures(device: str, data: list[str], toy: bool = False) -> list[rows.Row]:
    """Return the row that compares our training with a plain loop. An H100 took 59 seconds for it.

    Args:
        data: options that choose CIFAR-10, or another domain.
    """
    network = "cnn_bn" if toy else "resnet18"
    words = [
        *(*data, "teacher=supervised", "teacher.augment=shift", f"network@teacher.network={network}"),
        *(f"teacher.epochs={EPOCHS}", f"teacher.recipe.batch_size={32 if toy else SIZE}", f"runtime.device={device}"),
    ]
    return [(BESIDE_PLAIN, functools.partial(beside_plain, words))]


def beside_plain(words: list[str]) -> dict:
    """Train the teacher of a cell by our code and by a plain loop, from the same weights, with every seed."""
    began, found = time.monotonic(), {"ours": [], "plain": []}
    for seed in SEEDS:
        made = prepare(compose.cell(*words, f"seed={seed}"))
        network = copy.deepcopy(made.teacher.network)
        ours = made.teacher.train(made.scenario, made.runtime, seed, lambda epoch, metrics: None)
        found["ours"].append(accuracy(ours, made.scenario.id.test, made.runtime))
        found["plain"].append(_plain(network, made, seed))
    means = {who: statistics.mean(values) for who, values in found.items()}
    told = ", ".join(f"{who} {' '.join(f'{value:.1f}' for value in values)}" for who, values in found.items())
    compared = f"accuracy on test images after {EPOCHS} epochs, two seeds: {told}; the means may differ by {NEAR:g}"
    right = abs(means["ours"] - means["plain"]) <= NEAR
    return {"right": right, "compared": compared, "seconds": round(time.monotonic() - began, 1)}


def _plain(network: torch.nn.Module, made: Components, seed: int) -> float:
    """Return the test accuracy of a network, in percent, after a plain training with the recipe of a teacher."""
    domain, recipe, device = made.scenario.id, made.teacher.recipe, made.runtime.device
    mean, std = (torch.tensor(values, device=device).view(1, -1, 1, 1) for values in (domain.mean, domain.std))
    x, y = (domain.train.pixels().to(device) - mean) / std, domain.train.y.to(device)
    with seeded(seed, "plain"):
        plain.one_cycle(
            network.to(device), x, y, made.teacher.epochs, recipe.batch_size, recipe.lr, recipe.weight_decay
        )
    return plain.accuracy(network, (domain.test.pixels().to(device) - mean) / std, domain.test.y.to(device))


def fast(cells: Iterable[Cell]) -> list[rows.Row]:
    """Return the row of the teacher that these cells share, if one of them is finished."""
    result = next(filter(None, (cell.finished_result() for cell in cells)), None)
    return [] if result is None else [(SHORT, functools.partial(in_time, result))]


def in_time(result: dict) -> dict:
    """Say how accurate the teacher of a result is, and how long its training took."""
    seconds, options = result["seconds"]["teacher"], result["config"]["teacher"]
    what = f"teacher={options['name']}, {options['network']['name']}"
    got = f"{result['teacher']['iacc']:.1f} on test images after {options['epochs']} epochs in {seconds:.0f} s"
    return {"right": seconds <= FAST, "compared": f"{what}: {got} (at most {FAST:g})", "seconds": seconds}
