"""How a row is measured: interleaved repeats, ratios, and a check against a plain float32 computation."""

import contextlib
import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd.machine.runtime import Runtime
from dfkd.models.fused import ConvReLU

UNIT = torch.finfo(torch.float32).eps
TFLOPS = "ours, TFLOP/s"  # the name of this rate: 10^12 operations a second of convolutions and matrix products
TIMES = 30  # as far from float64 as plain float32: a convolution by Winograd's algorithm rounds ten times as coarsely


@dataclass(frozen=True)
class Goal:
    """What a row's median should be: `kind` is 'at least' or 'at most'."""

    kind: str
    value: float

    def met(self, value: float) -> bool:
        """Whether a value reaches the goal; NaN never does."""
        return value >= self.value if self.kind == "at least" else value <= self.value


@dataclass(frozen=True)
class Check:
    """How far a fast path is from the plain one.

    Attributes:
        what: was compared.
        error: found, `tolerance`: allowed.
    """

    what: str
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the two agree; an error of NaN does not."""
        return self.error <= self.tolerance


@dataclass
class Row:
    """One line of the table.

    Attributes:
        what, against: is compared.
        goal: of the median; None: it is measured only to be known.
        values: one a repeat: ratios, or what `unit` says.
        checks: of the fast path.
        rates: medians that the ratio was made of, by name.
    """

    what: str
    against: str
    goal: Goal | None
    values: list[float]
    checks: list[Check] = field(default_factory=list)
    rates: dict[str, float] = field(default_factory=dict)
    unit: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def met(self) -> bool:
        return self.goal is None or self.goal.met(self.median)

    @property
    def correct(self) -> bool:
        return all(check.passed for check in self.checks)


@dataclass
class Bench:
    """Where and how much is measured.

    Attributes:
        runtime: device and precision of the fast paths.
        repeats: of every timed pair.
        toy: sizes of seconds, to test this benchmark: its ratios mean nothing.
        folder: for files that a row needs.
    """

    runtime: Runtime
    repeats: int
    toy: bool
    folder: Path

    @property
    def cuda(self) -> bool:
        return self.runtime.device.type == "cuda"

    @property
    def exact(self) -> Runtime:
        """The same device in float32."""
        return replace(self.runtime, precision="float32")

    def size(self, toy: int, cpu: int, gpu: int) -> int:
        """How much of something: in a test, on a CPU, on a GPU."""
        return toy if self.toy else gpu if self.cuda else cpu

    def at_least(self, cpu: float | None, gpu: float | None = None) -> Goal | None:
        """A goal of its own on a GPU, if `gpu` is given; without a goal for a CPU there is none there."""
        return self._goal("at least", cpu, gpu)

    def at_most(self, cpu: float | None, gpu: float | None = None) -> Goal | None:
        return self._goal("at most", cpu, gpu)

    def _goal(self, kind: str, cpu: float | None, gpu: float | None) -> Goal | None:
        value = gpu if gpu is not None and self.cuda else cpu
        return None if value is None else Goal(kind, value)

    def seconds(self, **work: Callable[[], object]) -> dict[str, list[float]]:
        """Seconds of each piece of work in every repeat. All are run once unmeasured; then they take turns, every other
        repeat in the opposite order, so that what else the machine does falls on all alike."""
        for call in work.values():
            call()
        taken: dict[str, list[float]] = {name: [] for name in work}
        for repeat in range(self.repeats):
            for name in list(work) if repeat % 2 == 0 else reversed(work):
                self._wait()
                began = time.perf_counter()
                work[name]()
                self._wait()
                taken[name].append(time.perf_counter() - began)
        return taken

    def _wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize(self.runtime.device)


def ratios(above: list[float], below: list[float]) -> list[float]:
    """Quotients repeat by repeat."""
    return [a / b for a, b in zip(above, below, strict=True)]


def distance(ours: Iterable[Tensor], theirs: Iterable[Tensor]) -> float:
    """||ours - theirs|| / ||theirs|| of all numbers together; NaN where the shapes differ."""
    a, b = (torch.cat([x.detach().double().flatten() for x in side]) for side in (ours, theirs))
    return ((a - b).norm() / b.norm()).item() if a.shape == b.shape else math.nan


def compare(what: str, ours: Iterable[Tensor], plain: Iterable[Tensor], tolerance: float) -> Check:
    """The relative distance of two results."""
    return Check(what, distance(ours, plain), tolerance)


def compare_rounding(what: str, ours: list[Tensor], plain: list[Tensor], exact: list[Tensor]) -> Check:
    """How many times as far from float64 our float32 result is as the plain loop's float32 result, or as one rounding
    is if that is more. What differs from machine to machine is in both."""
    return Check(f"{what}, rounding in float32", distance(ours, exact) / max(distance(plain, exact), UNIT), TIMES)


@contextlib.contextmanager
def without_kinks() -> Iterator[None]:
    """Inside the block networks compute softplus instead of ReLU, and averages instead of maxima of a pooling window.

    A number that lies at a kink goes one way or the other by its last bit: two correct float32 results then lie
    thousands of roundings apart, how many is a matter of the CPU. What is compared here is not the activations.
    """

    def leaky(x: Tensor, slope: float = 0.01, inplace: bool = False) -> Tensor:
        return slope * x + (1 - slope) * F.softplus(x)

    def average(x: Tensor, size, stride, padding, dilation, **more) -> Tensor:
        return F.avg_pool2d(x, size, stride, padding)

    smooth = {"relu": lambda x, inplace=False: F.softplus(x), "leaky_relu": leaky, "max_pool2d": average}
    kinked = mock.patch.object(ConvReLU, "_in_one_kernel", lambda layer, x: False)
    with mock.patch.multiple(F, **smooth), mock.patch.object(torch, "relu", F.softplus), kinked:
        yield
