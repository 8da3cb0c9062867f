"""The same random numbers on every device, so that what a GPU computes can be compared with what a CPU computes."""

import contextlib
from collections.abc import Callable, Iterator
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode

from dfkd.machine.runtime import Runtime, stream_seed

FILLS = (torch.Tensor.uniform_, torch.Tensor.normal_, torch.Tensor.bernoulli_, torch.Tensor.random_)


@contextlib.contextmanager
def same_numbers() -> Iterator[None]:
    """Context manager: random streams of a runtime draw on the CPU, and what they draw is moved to its device."""
    with mock.patch.object(Runtime, "generator", _stream), _Move():
        yield


class _Stream(torch.Generator):
    """A random generator of the CPU that claims to be one of `device`."""

    device = torch.device("cpu")


def _stream(runtime: Runtime, seed: int, *names: str | int) -> torch.Generator:
    device = runtime.device
    kind = type("_Stream", (_Stream,), {"device": device})  # an instance of a generator takes no attributes
    return kind().manual_seed(stream_seed(seed, *names))


class _Move(TorchFunctionMode):
    def __torch_function__(self, function, types, arguments=(), options=None):
        options = dict(options or {})
        stream = options.get("generator")
        if isinstance(stream, _Stream):
            return function(*arguments, **options | {"device": "cpu"}).to(stream.device)
        if stream is None and _fills(function):
            first, *more = arguments or [options.pop("tensor")]
            here = torch.empty_like(first, device="cpu")
            function(here, *more, **options)
            first.detach().copy_(here)
            return first
        return function(*arguments, **options)


def _fills(function: Callable) -> bool:
    """Return whether a function fills a tensor with numbers of torch's own stream, as a network's first weights."""
    return function in FILLS or getattr(function, "__module__", "") == "torch.nn.init"
