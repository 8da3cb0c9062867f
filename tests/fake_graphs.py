"""CUDA graphs without CUDA: what is recorded is called again for every replay, and writes into the same tensors."""

import contextlib
import gc
from collections import Counter
from collections.abc import Callable, Iterator
from unittest import mock

import torch
from torch import Tensor, nn

from dfkd.machine import runtime


class FakeGraphs:
    """Counts what it is asked for; `refuse` is the message of what cannot be recorded."""

    def __init__(self, refuse: str | None = None):
        self.refuse = refuse
        self.warm_ups = self.records = self.replays = self.waits = 0

    def warm_up(self, function: Callable) -> object:
        self.warm_ups += 1
        return function()

    def record(self, function: Callable) -> tuple[object, Callable[[], None]]:
        """A real recording computes nothing, so that the statistics of BatchNorm are put back. A real replay runs no
        Python, so that what is counted in it is put back."""
        self.records += 1
        counters = [o for o in gc.get_objects() if issubclass(type(o), Counter)]
        buffers = [b for o in gc.get_objects() if issubclass(type(o), nn.Module) for b in o.buffers(recurse=False)]
        before = [buffer.clone() for buffer in buffers]
        outputs = function()
        for buffer, value in zip(buffers, before, strict=True):
            buffer.copy_(value)
        if self.refuse is not None:
            raise RuntimeError(self.refuse)
        for tensor in tensors(outputs):
            tensor.detach().fill_(torch.nan if tensor.is_floating_point() else 0)

        def replay() -> None:
            self.replays += 1
            counts = [counter.copy() for counter in counters]
            for old, new in zip(tensors(outputs), tensors(function()), strict=True):
                old.detach().copy_(new.detach())
            for counter, before in zip(counters, counts, strict=True):
                counter.clear()
                counter.update(before)

        return outputs, replay

    def wait(self) -> None:
        self.waits += 1


def tensors(outputs: object) -> list[Tensor]:
    """The tensors in tuples, lists and dictionaries."""
    if isinstance(outputs, Tensor):
        return [outputs]
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
