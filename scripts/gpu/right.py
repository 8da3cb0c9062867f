"""Half 1, what is right: every method, defense and teacher on the device against the CPU."""

import contextlib
import functools
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import torch
from safetensors.torch import load_file

from dfkd.models import Classifier
from dfkd.run.run_cell import run_cell
from gpu import clock, compose, rows
from gpu.same_numbers import same_numbers

# Differences of a weight are shares of the largest weight of its tensor. What differs is the order of sums. How much a
# cell amplifies that (by Adam's first step, by pixels rounded to 8 bits) show more runs on the CPU: with another
# kernel, and from weights that differ by SHAKE, about what a GPU's fast convolutions of float32 round. There are
# several, because a number at an edge falls to the other side in one of them and not in the next.
TOLERANCE, TIMES = 1e-4, 10  # a device may differ by TOLERANCE, or by TIMES as much as these if that is more
SHAKE, SHAKEN = 1e-5, 3
TOY = (
    *("debug=smoke", "+limit.batch_size=20", "+limit.images=40", "+limit.width=8", "+limit.noise=8", "data.limit=200"),
    *("runtime.precision=float32", "runtime.checkpoint_every=null", "evaluate.premise.images=20"),
)
# One step of everything: the next ones would multiply the rounding of the first.
ONE_STEP = tuple(f"limit.{name}=1" for name in ("rounds", "steps", "training_steps", "snapshots", "carrier_steps"))
STEPS = {"student": (*ONE_STEP, "limit.warm_up=0"), "teacher": ("data.limit=40", "limit.carrier_steps=1")}
WORKERS = 6  # rows at once on a GPU, which takes turns with the CPU's cores
OOD = ("ntl_scenario=close_set", "data.channels=3")
TRIGGERED = {"teacher=backdoor", "teacher=clean_twin"}


def compared() -> Iterator[tuple[str, list[str], str]]:
    """Yield (name, options, whose weights are compared) of all rows: a synthesizer, a defense or a teacher each."""
    for name in compose.options("synthesizer"):
        points = ["domain@ntl_scenario.id=two_moons"] if name == "cake_2d" else []
        networks = ["network@teacher.network=mlp", "network@student.network=mlp"] if points else []
        student = ["student=offline"] if name in ("noise_images", "real") else []
        yield f"synthesizer {name}", [f"synthesizer={name}", *points, *networks, *student], "student"
    for name in compose.options("defense"):
        yield f"defense {name}", ["ntl_scenario=backdoor", "teacher=backdoor", f"defense={name}"], "student"
    for name in compose.options("teacher"):
        chosen = f"teacher={name}"
        if name == "checkpoint":  # trains nothing
            continue
        own = ["ntl_scenario=backdoor"] if chosen in TRIGGERED else [] if name.startswith("supervised") else list(OOD)
        yield f"teacher {name}", [chosen, *own, "synthesizer=noise_images", "student=offline"], "teacher"


def difference(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    """Return the largest difference of two sets of weights, every tensor in units of its largest value."""
    shares = []
    for name, one in first.items():
        gap = (one.double() - second[name].double()).abs().max()
        shares.append((gap / one.double().abs().max().clamp_min(1e-12)).item())
    return max(shares)


def compare(options: list[str], whose: str, device: str) -> dict:
    """Compute a cell on the CPU in several ways, and on a device, from the same random numbers; if the student is
    compared, with the same teacher.

    Returns:
        a row: the largest difference of the weights of the student or the teacher, the largest one of the other ways of
        the CPU, and the seconds on the device.
    """
    with tempfile.TemporaryDirectory() as top, same_numbers():

        def made(name: str, place: str, way: contextlib.AbstractContextManager) -> dict[str, torch.Tensor]:
            folder = Path(top, name)
            if name != "cpu" and whose == "student":
                shutil.copytree(Path(top, "cpu", "store", "teacher"), folder / "store" / "teacher")
            with way:
                words = [*options, *TOY, *STEPS[whose], f"runtime.device={place}", f"outputs={folder}"]
                run_cell(compose.cell(*words))
            return weights(folder, whose)

        exact = made("cpu", "cpu", contextlib.nullcontext())
        ways = {"kernel": _other_kernel()} | {f"shaken{seed}": _shaken_weights(seed) for seed in range(SHAKEN)}
        others = [made(name, "cpu", way) for name, way in ways.items()]
        began = time.perf_counter()
        gap = difference(exact, made("device", device, contextlib.nullcontext()))
        seconds = time.perf_counter() - began
    rounding = max(difference(exact, other) for other in others)
    right = gap <= max(TOLERANCE, TIMES * rounding)
    return {"right": right, "difference": gap, "rounding": rounding, "seconds": round(seconds, 1)}


@contextlib.contextmanager
def _other_kernel() -> Iterator[None]:
    """Context manager: convolutions of the CPU are computed without oneDNN, in another order."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch tells of TF32 on Intel's GPUs
        with torch.backends.mkldnn.flags(enabled=False):
            yield


@contextlib.contextmanager
def _shaken_weights(seed: int) -> Iterator[None]:
    """Context manager: networks start with weights that are larger or smaller by SHAKE of themselves."""
    start = Classifier.__init__

    def shaken(model: Classifier, net: torch.nn.Module, *arguments: object, **options: object) -> None:
        stream = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in net.parameters():
                weight.mul_(1 + SHAKE * torch.randn(weight.shape, generator=stream).sign())
        start(model, net, *arguments, **options)

    with mock.patch.object(Classifier, "__init__", shaken):
        yield


def weights(outputs: Path, whose: str) -> dict[str, torch.Tensor]:
    """Return the weights of the only student or teacher in the store of a folder of outputs."""
    (file,) = outputs.glob(f"store/{whose}/*/{whose}.safetensors")
    return load_file(file)


def run(device: str, deadline: clock.Deadline, out: Path, only: str = "") -> None:
    """Compute all rows that are not there yet, until the deadline (`rows.run`)."""
    measures = [(name, functools.partial(compare, options, whose, device)) for name, options, whose in compared()]
    workers = min(WORKERS, (os.cpu_count() or 1) // 2)
    rows.run(device, deadline, out, measures, only, workers, tolerance=TOLERANCE)
