"""`pytest --device cuda`: what the tests compute is computed there.

A test that asks for the fixture `device`, or for one that is made with it (`runtime`, `random`, `teacher`, ...), runs
on the device: the tensors, random generators and classifiers that the test itself makes, the networks that it calls,
and the pixels that it takes of a domain, lie there. What the package makes lies where the package puts it,
so that a wrong place shows as an error.

`--device elsewhere` is the stand-in for a GPU (`tests.elsewhere`): it shows on any machine which tests mix two devices.
"""

import contextlib
import inspect
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
import torch
from elsewhere import ELSEWHERE, StreamThere, elsewhere
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors

from dfkd.domains import Images
from dfkd.machine.precision import float32_arithmetic
from dfkd.models import Classifier

TESTS = str(Path(__file__).parent)
TORCH = str(Path(torch.__file__).parent) + os.sep  # "torch" may also be in the path of the whole interpreter
FAR = 1 << 40  # added to the seeds of a test on the stand-in: a GPU draws other numbers than the CPU, too


def asked_device(name: str) -> torch.device:
    """Return the device of the option `--device`.

    Raises:
        pytest.UsageError: there is no such device.
    """
    if name == "elsewhere":
        return ELSEWHERE
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise pytest.UsageError(f"--device must be cpu, cuda, cuda:N or elsewhere, got '{name}'") from error
    if device.type not in ("cpu", "cuda"):
        raise pytest.UsageError(f"--device must be cpu, cuda, cuda:N or elsewhere, got '{name}'")
    usable = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= usable:
        raise pytest.UsageError(f"--device={name}, but this machine has {usable} usable CUDA devices")
    return device


def stand_in(device: torch.device) -> contextlib.AbstractContextManager:
    """Return a context manager inside which the stand-in is a device, if it is the one that was asked for."""
    return elsewhere() if device == ELSEWHERE else contextlib.nullcontext()


@contextlib.contextmanager
def device_of_tests(device: torch.device) -> Iterator[None]:
    """Inside the block, what a test makes without naming a device lies on this one, and float32 is IEEE float32, as in
    every run; by default, torch's convolutions on a GPU are in TF32."""
    if device.type == "cpu":
        yield
        return
    generator, try_images, call, pixels = torch.Generator, Classifier._try_images, nn.Module.__call__, Images.pixels

    class Kind(type):
        """A class of which the random generators of torch are instances."""

        def __instancecheck__(cls, thing: object) -> bool:
            return isinstance(thing, generator)

        def __call__(cls, *place: object) -> torch.Generator:
            if place or not from_a_test():
                return generator(*place)
            return StreamOfATest().manual_seed(0) if device == ELSEWHERE else generator(device)

    def try_there(model: Classifier) -> None:  # the last thing that its constructor does
        try_images(model.to(device) if from_a_test(inspect.getfile(Classifier)) else model)

    def call_there(module: nn.Module, *arguments: object, **options: object) -> object:
        return call(module.to(device) if from_a_test() else module, *arguments, **options)

    def pixels_there(images: Images, *index: object) -> torch.Tensor:
        if not from_a_test():
            return pixels(images, *index)
        place = images.x.device
        return pixels(images, *[i.to(place) if isinstance(i, torch.Tensor) else i for i in index]).to(device)

    with (
        float32_arithmetic("ieee"),
        mock.patch.object(torch, "Generator", Kind("Generator", (), {})),
        mock.patch.object(Classifier, "_try_images", try_there),
        mock.patch.object(nn.Module, "__call__", call_there),
        mock.patch.object(Images, "pixels", pixels_there),
        MadeThere(device),
    ):
        yield


class MadeThere(TorchFunctionMode):
    """A tensor that a test makes without naming a device is made on the CPU and moved, so that its numbers are the same
    on every device; or by a random generator, on the generator's device."""

    def __init__(self, device: torch.device):
        super().__init__()
        self.device = device

    def __torch_function__(self, function, types, arguments=(), options=None):
        options = options or {}
        if function not in _device_constructors() or options.get("device") is not None or not from_a_test():
            return function(*arguments, **options)
        if options.get("generator") is not None:
            return function(*arguments, **options, device=options["generator"].device)
        made = function(*arguments, **options)
        return made.detach().to(self.device).requires_grad_(made.requires_grad)


def agree(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Return whether two computations of the same numbers agree: to the bit on the CPU, and within rounding on a GPU,
    which adds in another order every time."""
    if one.device.type == "cpu":
        return torch.equal(one, other)
    return (one - other).abs().max().item() <= 1e-3 * one.abs().max().item()


def on_a_cpu(device: torch.device, bound: float, elsewhere: float) -> float:
    """Return the bound of a test on a CPU, and another one elsewhere, where other numbers are drawn."""
    return bound if device.type == "cpu" else elsewhere


def from_a_test(*passed_over: str) -> bool:
    """Return whether a test's own code is what called: the nearest caller outside of this file, torch, and the files
    `passed_over`."""
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if file not in (__file__, *passed_over) and not file.startswith(TORCH):
            return file.startswith(TESTS)
        frame = frame.f_back
    return False


class StreamOfATest(StreamThere):
    """A random generator that a test made on the stand-in."""

    def manual_seed(self, seed: int) -> "StreamOfATest":
        self.seeds.add(seed + FAR)
        return super().manual_seed(seed + FAR)
