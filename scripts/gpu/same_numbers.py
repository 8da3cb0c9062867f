"""The same random numbers on every device, so that what a GPU computes can be compared with what a CPU computes."""

import contextlib
from collections.abc import Iterator
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode

from dfkd.machine.runtime import Runtime, stream_seed


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
        if not isinstance(stream, _Stream):
            return function(*arguments, **options)
        return function(*arguments, **options | {"device": "cpu"}).to(stream.device)
