"""What records the work of a GPU as CUDA graphs, and how parts of it run beside each other."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor


class Graphs(Protocol):
    """Records the GPU work of functions."""

    def warm_up(self, function: Callable[[], Any]) -> Any:
        """Call a function in the way in which `record` does, but compute."""

    def record(self, function: Callable[[], Any]) -> tuple[Any, Callable[[], None]]:
        """Call a function without computing.

        Returns:
            (what the function returns, a function that does the recorded work once on the same tensors).
        """

    def wait(self) -> None:
        """Wait until the device has finished its work."""


class CUDAGraphs:
    """Graphs of a CUDA device (https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs)."""

    def __init__(self, device: torch.device):
        self.device = device

    def warm_up(self, function: Callable[[], Any]) -> Any:
        # A recording uses a stream of its own, for which torch and its libraries set themselves up at the first use.
        own, current = torch.cuda.Stream(self.device), torch.cuda.current_stream(self.device)
        own.wait_stream(current)
        with torch.cuda.stream(own):
            outputs = function()
        current.wait_stream(own)
        # In memory of the current stream. A list stays in that of `own`, which waits for us before it is used again.
        return copied(outputs)

    def record(self, function: Callable[[], Any]) -> tuple[Any, Callable[[], None]]:
        graph, current = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self.device)
        generator = torch.cuda.default_generators[current.device.index]
        before = generator.clone_state()
        try:
            with torch.cuda.graph(graph):
                outputs = function()
        except RuntimeError:
            # torch leaves the recording's stream as the current one, and its generator as if it were still recorded.
            torch.cuda.set_stream(current)
            generator.graphsafe_set_state(before)
            raise
        return outputs, graph.replay

    def wait(self) -> None:
        torch.cuda.synchronize(self.device)


def side_by_side(device: torch.device, functions: Sequence[Callable[[], Any]]) -> list[Any]:
    """Call functions that do not depend on each other, and return what they return. On a GPU each works in a stream of
    its own, so that small kernels run beside each other; in a recording they become branches of the graph."""
    if device.type != "cuda":
        return [function() for function in functions]
    current, results = torch.cuda.current_stream(device), []
    streams = _streams(device, len(functions))
    for function, stream in zip(functions, streams, strict=True):
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            results.append(function())
    for stream in streams:
        current.wait_stream(stream)
    return results


@functools.cache
def _streams(device: torch.device, count: int) -> list[torch.cuda.Stream]:
    return [torch.cuda.Stream(device) for _ in range(count)]


def copied(outputs: Any) -> Any:
    """Return copies of tensors in tuples and dictionaries; lists and other objects are returned as they are."""
    old: list[Tensor] = []
    new: list[Tensor] = []

    def empty(part: Any) -> Any:
        if isinstance(part, dict):
            return {name: empty(value) for name, value in part.items()}
        if isinstance(part, tuple):
            return tuple(map(empty, part))
        if not isinstance(part, Tensor):
            return part
        old.append(part)
        new.append(torch.empty_like(part, requires_grad=False))
        return new[-1]

    result = empty(outputs)
    copy_all(new, old)
    return result


@torch.no_grad()
def copy_all(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """Copy tensors into others of the same shapes, those of a floating type by one operation: a step of a small network
    has a dozen arguments and results, and starting an operation takes a GPU's host longer than the copy."""
    kinds: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
    for target, source in zip(targets, sources, strict=True):
        if not target.is_floating_point():  # few, and not all of their types are known to that operation
            target.copy_(source)
            continue
        same = kinds.setdefault(target.dtype, ([], []))
        same[0].append(target)
        same[1].append(source)
    for into, these in kinds.values():
        torch._foreach_copy_(into, these)
