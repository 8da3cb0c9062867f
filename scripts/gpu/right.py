"""Half 1, what is right: every method, defense and teacher on the device against the CPU."""

import functools
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file

from dfkd.run.run_cell import run_cell
from gpu import clock, compose, rows
from gpu.same_numbers import same_numbers

# What differs is the order of sums, which the few steps of such a run amplify.
TOLERANCE = 0.02  # largest difference of a weight, as a share of the largest weight of its tensor
TOY = (
    *("debug=smoke", "+limit.batch_size=20", "+limit.images=40", "+limit.width=8", "+limit.noise=8", "data.limit=200"),
    *("runtime.precision=float32", "runtime.checkpoint_every=null", "evaluate.premise.images=20"),
)
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


def compare(options: list[str], whose: str, device: str) -> tuple[float, float]:
    """Compute a cell on the CPU and on a device from the same random numbers.

    Returns:
        the largest difference of the weights of the student or the teacher, and the seconds on the device.
    """
    found, seconds = [], 0.0
    for place in ("cpu", device):
        with tempfile.TemporaryDirectory() as folder, same_numbers():
            began = time.perf_counter()
            cell = compose.cell(*options, *TOY, f"runtime.device={place}", f"outputs={folder}")
            run_cell(cell)
            seconds = time.perf_counter() - began
            found.append(weights(Path(folder), whose))
    return difference(*found), seconds


def weights(outputs: Path, whose: str) -> dict[str, torch.Tensor]:
    """Return the weights of the only student or teacher in the store of a folder of outputs."""
    (file,) = outputs.glob(f"store/{whose}/*/{whose}.safetensors")
    return load_file(file)


def run(device: str, deadline: clock.Deadline, out: Path, only: str = "") -> None:
    """Compute all rows that are not there yet, until the deadline (`rows.run`)."""
    measures = [(name, functools.partial(_row, options, whose, device)) for name, options, whose in compared()]
    rows.run(device, deadline, out, measures, only, tolerance=TOLERANCE)


def _row(options: list[str], whose: str, device: str) -> dict:
    gap, seconds = compare(options, whose, device)
    return {"right": gap <= TOLERANCE, "difference": gap, "seconds": round(seconds, 1)}
