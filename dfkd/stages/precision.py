"""runtime.precision=auto: float32 or bfloat16, whichever a short measurement on this machine finds faster."""

import copy
import json
import logging
import platform
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd.config.cell import Cell
from dfkd.errors import Damaged
from dfkd.machine import distributed
from dfkd.machine.runtime import Runtime, device_name, seeded
from dfkd.models import Classifier
from dfkd.stages.parts import Parts
from dfkd.store.access import reading
from dfkd.store.files import file_lock, write_atomic

log = logging.getLogger("dfkd")
GAIN = 1.1  # bfloat16 has to be so much faster: less is within the noise, and float32 is the more exact
REPEATS, SECONDS = 3, 1.0  # so many at least, and more while there is time
AT_ONCE = {"cpu": 64, "cuda": 1024}  # images at most, so that the measurement takes seconds with a large network, too


def choose_precision(cell: Cell, parts: Parts) -> Runtime:
    """A cell's runtime, with the faster precision where that is to be chosen.

    What is timed is one look at the teacher with the gradient of its input, and one training step of the student
    without the optimizer: what synthesis and distillation spend their time on. Nothing of the cell is changed.

    The choice is kept in `<outputs>/precision.json`, by device, version of torch, threads, networks and batch: a
    machine measures once, and a cell that is repeated or gone on with computes as before.
    """
    runtime = parts.runtime
    if cell.config["runtime"]["precision"] != "auto" or runtime.precision == torch.float32:
        return runtime
    found = distributed.by_first(lambda: chosen(cell, parts))
    return replace(runtime, precision=getattr(torch, found))


def chosen(cell: Cell, parts: Parts) -> str:
    """The name of the faster precision, from what is kept or measured now."""
    runtime, config = parts.runtime, cell.config
    images = min(parts.student.recipe.batch_size, AT_ONCE[runtime.device.type])
    where = {
        "device": device_name(runtime.device),
        "host": platform.node() if runtime.device.type == "cpu" else None,  # GPUs of a kind are alike
        "torch": torch.__version__,
        "teacher": config["teacher"]["network"],
        "student": config["student"]["network"],
        "images": [images, *parts.scenario.id.shape],
    }
    file = cell.outputs / "precision.json"
    with file_lock(file.with_suffix(".lock"), "the choice of a precision"):
        known = read(file)
        found = next((choice for choice in known if choice["where"] == where), None)
        if found is None:
            found = {"where": where} | measure(parts, images)
            write_atomic(file, json.dumps([*known, found], indent=2) + "\n")
            gain = found["seconds"]["float32"] / found["seconds"]["bfloat16"]
            log.info("  precision %s: bfloat16 is %.2f times as fast as float32 here", found["precision"], gain)
    return found["precision"]


def measure(parts: Parts, images: int) -> dict:
    """{'precision': the faster one, 'seconds': of both by name, the least of repeats that take turns: what else runs on
    the machine only ever adds to them}."""
    domain, device = parts.scenario.id, parts.runtime.device
    work, seconds = {}, {"float32": [], "bfloat16": []}
    with seeded(0, "precision"):
        nets = copy.deepcopy((parts.teacher.network, parts.student.network))
        models = [Classifier(net, domain.shape, domain.classes, domain.mean, domain.std) for net in nets]
        batch = torch.rand(images, *domain.shape, device=device)
        for name in seconds:
            work[name] = step(replace(parts.runtime, precision=getattr(torch, name)), *models, batch)
        for run in work.values():
            run()  # the first time also pays for what is set up once
        while len(seconds["float32"]) < REPEATS or sum(sum(spent) for spent in seconds.values()) < SECONDS:
            for name, run in work.items():
                seconds[name].append(timed(run, device))
    least = {name: min(spent) for name, spent in seconds.items()}
    gains = least["float32"] >= GAIN * least["bfloat16"]
    return {"precision": "bfloat16" if gains else "float32", "seconds": least}


def step(runtime: Runtime, teacher: Classifier, student: Classifier, images: Tensor) -> Callable[[], None]:
    """Return a function that takes the step which is timed."""
    runtime.place(teacher).eval().requires_grad_(False)
    runtime.place(student).train()
    parameters = [p for p in student.parameters() if p.requires_grad]

    def run() -> None:
        x = images.clone().requires_grad_(True)
        with runtime.autocast():
            t = teacher(x).float()
        torch.autograd.grad(t.logsumexp(1).sum(), x)
        with runtime.autocast():
            s = student(images).float()
        torch.autograd.grad(F.mse_loss(s, t.detach()), parameters, allow_unused=True)

    return run


def timed(run: Callable[[], None], device: torch.device) -> float:
    """Return how many seconds one call takes, with all that it has put on the GPU."""
    began = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def read(file: Path) -> list[dict]:
    """What was chosen before; nothing, if the file is missing or damaged.

    Raises:
        Inaccessible: the system does not let us read it; another choice would be another number.
    """
    try:
        with reading(file):
            text = file.read_text(errors="replace")
    except Damaged:
        return []
    try:
        return [c for c in json.loads(text) if c["where"] and c["precision"] in ("float32", "bfloat16")]
    except (ValueError, TypeError, KeyError, RecursionError):
        return []
