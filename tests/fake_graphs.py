"""CUDA graphs without CUDA: what is recorded is called again for every replay, and writes into the same tensors."""

import contextlib
import gc
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from unittest import mock

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dfkd.machine import runtime

WAITS = {"item", "tolist", "numpy", "nonzero", "masked_select", "equal", "unique", "bincount"}
WAITS |= {"__bool__", "__int__", "__float__", "__index__", "tensor", "new_tensor"}


class OnlyRecordable(TorchFunctionMode):
    """Inside the block, fail where a GPU could not record: to look at a value, to copy one from the CPU, to draw from a
    generator."""

    def __torch_function__(self, function, types, arguments=(), options=None):
        options = options or {}
        index = arguments[1] if function is Tensor.__getitem__ else ()
        masks = [i for i in (index if isinstance(index, tuple) else [index]) if getattr(i, "dtype", None) == torch.bool]
        refused = function.__name__ in WAITS or masks or options.get("generator") is not None
        assert not refused, f"a GPU cannot record {function.__name__}"
        return function(*arguments, **options)


class FakeGraphs:
    """Counts what it is asked for; `refuse` is the message of what cannot be recorded."""

    def __init__(self, refuse: str | None = None):
        self.refuse = refuse
        self.warm_ups = self.records = self.replays = self.waits = 0

    def warm_up(self, function: Callable) -> object:
        self.warm_ups += 1
        outputs = function()
        # A GPU refuses to record a backward pass while a graph of an earlier call is alive.
        assert not any(tensor.requires_grad for tensor in tensors(outputs)), "a graph outlives the step"
        return outputs

    def record(self, function: Callable) -> tuple[object, Callable[[], None]]:
        """A real recording computes nothing, so that the statistics of BatchNorm are put back. A real replay runs no
        Python, so that what is counted in it is put back. What the next part of a step has a gradient of may not look
        changed to torch."""
        self.records += 1
        objects = [o for o in gc.get_objects() if issubclass(type(o), (Counter, nn.Module))]
        counters = [o for o in objects if isinstance(o, Counter)]
        buffers = [b for o in objects if isinstance(o, nn.Module) for b in o.buffers(recurse=False)]
        before = [buffer.clone() for buffer in buffers]
        with OnlyRecordable():
            outputs = function()
        for buffer, value in zip(buffers, before, strict=True):
            with torch.autograd._unsafe_preserve_version_counter(buffer):
                buffer.copy_(value)
        if self.refuse is not None:
            raise RuntimeError(self.refuse)
        there = {id(buffer) for buffer in buffers}  # the statistics of a teacher's pass contain its running ones
        own = [id(tensor) not in there for tensor in tensors(outputs)]
        for tensor in itertools.compress(tensors(outputs), own):
            with torch.autograd._unsafe_preserve_version_counter(tensor):
                tensor.detach().fill_(torch.nan if tensor.is_floating_point() else 0)

        def replay() -> None:
            self.replays += 1
            counts = [counter.copy() for counter in counters]
            pairs = zip(tensors(outputs), tensors(function()), strict=True)
            for old, new in itertools.compress(pairs, own):
                old.detach().copy_(new.detach())
            for counter, before in zip(counters, counts, strict=True):
                counter.clear()
                counter.update(before)

        return outputs, replay

    def wait(self) -> None:
        self.waits += 1


def tensors(outputs: object) -> list[Tensor]:
    """The tensors in tuples, lists, dictionaries and objects of data."""
    if isinstance(outputs, Tensor):
        return [outputs]
    outputs = vars(outputs) if is_dataclass(outputs) else outputs
    parts = outputs.values() if isinstance(outputs, dict) else outputs if isinstance(outputs, tuple | list) else ()
    return [tensor for part in parts for tensor in tensors(part)]


@contextlib.contextmanager
def graphs_everywhere(graphs: FakeGraphs) -> Iterator[FakeGraphs]:
    """Inside the block, runtimes of a CPU record with these graphs, as those of a GPU do."""
    with (
        mock.patch.object(runtime.Runtime, "captures", property(lambda self: self.capture != "none")),
        mock.patch.object(runtime, "CUDAGraphs", lambda device: graphs),
    ):
        yield graphs
