"""runtime.precision=auto: choose float32, tf32 or bfloat16 by a short time measurement on this machine."""

import copy
import json
import logging
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd.config.cell import Cell
from dfkd.errors import Damaged
from dfkd.machine import distributed
from dfkd.machine.precision import PRECISIONS
from dfkd.machine.runtime import Runtime, device_name, precisions_of, seeded
from dfkd.models import Classifier
from dfkd.stages.components import Components
from dfkd.store.access import reading
from dfkd.store.files import file_lock, write_atomic

log = logging.getLogger("dfkd")
GAIN = 1.1  # a less exact precision must be faster by this factor; less is within the noise
REPEATS, SECONDS = 3, 1.0  # smallest number of repeats for each precision, and smallest time of all repeats
LARGEST_BATCH = {"cpu": 64, "cuda": 1024}  # so that the measurement takes seconds also with a large network


def choose_precision(cell: Cell, components: Components) -> Runtime:
    """Return the runtime of a cell; with `runtime.precision=auto`, its precision is the fastest one.

    One forward pass of the teacher with the gradient of its input, and one forward and backward pass of the student are
    timed, since synthesis and distillation spend their time on these. The cell's objects are not changed.

    The choice is saved in `<outputs>/precision.json` by device, version of torch, threads, networks and batch. So a
    machine measures once, and a repeated or resumed cell computes with the same precision as before.
    """
    runtime = components.runtime
    if cell.config["runtime"]["precision"] != "auto" or runtime.precision == "float32":
        return runtime
    return replace(runtime, precision=distributed.on_first_rank(lambda: fastest_precision(cell, components)))


def fastest_precision(cell: Cell, components: Components) -> str:
    """Return the fastest precision from precision.json, or measure it and save it there.

    An earlier choice counts only if it was between the same precisions: before tf32 was one of them, what a GPU
    measured as float32 was TF32.
    """
    runtime, config = components.runtime, cell.config
    images = min(components.student.recipe.batch_size, LARGEST_BATCH[runtime.device.type])
    where = {
        "device": device_name(runtime.device),
        "host": platform.node() if runtime.device.type == "cpu" else None,  # GPUs of one model are equally fast
        "torch": torch.__version__,
        "teacher": config["teacher"]["network"],
        "student": config["student"]["network"],
        "images": [images, *components.scenario.id.shape],
    }
    file = cell.outputs / "precision.json"
    with file_lock(file.with_suffix(".lock"), "the choice of a precision"):
        choices, precisions = read(file), precisions_of(runtime.device)
        choice = next((c for c in choices if c["where"] == where and c["seconds"].keys() == set(precisions)), None)
        if choice is None:
            choice = {"where": where} | measure(components, images, precisions)
            others = [earlier for earlier in choices if earlier["where"] != where]
            write_atomic(file, json.dumps([*others, choice], indent=2) + "\n")
            log.info("  precision %s: %s as float32 here", choice["precision"], in_words(choice["seconds"]))
    return choice["precision"]


def in_words(seconds: dict[str, float]) -> str:
    """Return how many times as fast as float32 the other precisions are, such as 'bfloat16 is 1.84 times as fast'."""
    gains = [f"{name} is {seconds['float32'] / took:.2f}" for name, took in seconds.items() if name != "float32"]
    return f"{' and '.join(gains)} times as fast"


def measure(components: Components, images: int, precisions: Sequence[str]) -> dict:
    """Time the precisions.

    They are measured in turns, and the shortest time counts, since other processes on the machine can only make a
    repeat longer.

    Args:
        images: number of images in the batch.
        precisions: their names, the most exact one first.

    Returns:
        {'precision': the fastest one, 'seconds': {precision: shortest time of one step}}.
    """
    domain, device = components.scenario.id, components.runtime.device
    steps, seconds = {}, {name: [] for name in precisions}
    with seeded(0, "precision"):
        nets = copy.deepcopy((components.teacher.network, components.student.network))
        models = [Classifier(net, domain.shape, domain.classes, domain.mean, domain.std) for net in nets]
        batch = torch.rand(images, *domain.shape, device=device)
        for name in seconds:
            steps[name] = step(replace(components.runtime, precision=name), *models, batch)
        for run in steps.values():
            run()  # warm-up: the first call includes setup that happens once
        while len(seconds["float32"]) < REPEATS or sum(sum(spent) for spent in seconds.values()) < SECONDS:
            for name, run in steps.items():
                seconds[name].append(timed(run, device))
    least = {name: min(spent) for name, spent in seconds.items()}
    return {"precision": fastest(least), "seconds": least}


def fastest(seconds: dict[str, float]) -> str:
    """Return the fastest precision; where the gain is within the noise, the more exact one.

    Args:
        seconds: {precision: time of one step}, the most exact precision first.
    """
    best, *others = seconds
    for name in others:
        best = name if seconds[best] >= GAIN * seconds[name] else best
    return best


def step(runtime: Runtime, teacher: Classifier, student: Classifier, images: Tensor) -> Callable[[], None]:
    """Return a function that computes the step to be timed (see `choose_precision`).

    Args:
        runtime: a runtime with the precision to be timed.
        teacher, student: the models; they are moved to the device.
        images: the batch (B, C, H, W).
    """
    runtime.to_device(teacher).eval().requires_grad_(False)
    runtime.to_device(student).train()
    parameters = [p for p in student.parameters() if p.requires_grad]

    def run() -> None:
        x = images.clone().requires_grad_(True)
        with runtime.autocast():
            t = teacher(x).float()
        with runtime.gradients():
            torch.autograd.grad(t.logsumexp(1).sum(), x)
        with runtime.autocast():
            s = student(images).float()
        with runtime.gradients():
            torch.autograd.grad(F.mse_loss(s, t.detach()), parameters, allow_unused=True)

    return run


def timed(run: Callable[[], None], device: torch.device) -> float:
    """Return the seconds that one call takes, until the GPU has finished its work."""
    began = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def read(file: Path) -> list[dict]:
    """Return the earlier choices; an empty list if the file is missing or damaged.

    Raises:
        Inaccessible: the operating system refuses to read the file. A new measurement might choose another precision
            and so change the numbers of a cell.
    """
    try:
        with reading(file):
            text = file.read_text(errors="replace")
    except Damaged:
        return []
    try:
        return [c for c in json.loads(text) if c["where"] and c["precision"] in PRECISIONS and c["seconds"].keys()]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return []
