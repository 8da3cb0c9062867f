"""A device that is not the CPU, for machines that have none: its tensors lie in the CPU's memory, and say otherwise.

What a GPU would refuse is refused: an operation on tensors of both devices (a tensor without dimensions may come along,
an index too). What runs here finds no other fault of a GPU: its kernels, its autocast and its timing are not looked at.
"""

import contextlib
from collections.abc import Iterator
from typing import ClassVar
from unittest import mock

import safetensors.torch
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode_stack

from dfkd.machine import runtime

ELSEWHERE = torch.device("meta")  # a type of device that torch lets autograd run for without a driver
MAY_MIX = ("aten::copy_", "aten::_to_copy", "aten::index", "aten::index_put_", "aten::_index_put_impl_")


class Mixed(RuntimeError):
    """An operation has tensors of two devices."""


class There(Tensor):
    """A tensor of the other device; `here` has its numbers."""

    @staticmethod
    def __new__(cls, here: Tensor) -> "There":
        form = {"strides": here.stride(), "storage_offset": here.storage_offset(), "dtype": here.dtype}
        return Tensor._make_wrapper_subclass(cls, here.shape, device=ELSEWHERE, **form)

    def __init__(self, here: Tensor):
        self.here = here

    def __repr__(self) -> str:
        return f"There({self.here!r})"

    is_meta = False

    def tolist(self) -> list:
        return self.here.tolist()

    def data_ptr(self) -> int:
        return self.here.data_ptr()

    def __format__(self, form: str) -> str:
        return format(self.here, form)

    def __reduce_ex__(self, protocol: int) -> tuple:
        """A file has the numbers alone."""
        return self.here.__reduce_ex__(protocol)

    @classmethod
    def __torch_dispatch__(cls, operation, types, arguments=(), options=None):
        return compute(operation, arguments, options or {})


class StreamThere(torch.Generator):
    """A random generator of the other device."""

    device = ELSEWHERE
    seeds: ClassVar[set[int]] = set()  # by which an operation, which sees another object, knows one


class Functions(TorchFunctionMode):
    """What is no operation that `Dispatch` sees: torch.tensor(numbers, device=...), tensor.data = other, and an index
    that is a list, of which torch itself would make a tensor without values."""

    def __torch_function__(self, function, types, arguments=(), options=None):
        options = dict(options or {})
        if function == Tensor.data.__set__ and isinstance(arguments[0], There):
            arguments[0].here = arguments[1].here
        if function in (Tensor.__getitem__, Tensor.__setitem__) and isinstance(arguments[0], There):
            arguments = (arguments[0], listed(arguments[1]), *arguments[2:])
        if function not in (torch.tensor, torch.as_tensor) or options.get("device") is None:
            return function(*arguments, **options)
        device = options.pop("device")
        return function(*arguments, **options).to(device)


def listed(index: object) -> object:
    """Return an index whose lists and ranges are tensors of the CPU."""
    if isinstance(index, tuple):
        return tuple(map(listed, index))
    return torch.tensor(list(index), device="cpu") if isinstance(index, list | range) else index


class Dispatch(TorchDispatchMode):
    """Sees the operations that make tensors on the other device from none."""

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        return compute(operation, arguments, options or {})


def compute(operation, arguments: tuple, options: dict):
    """Do an operation on the CPU, and say that its results lie where they would."""
    name = operation._schema.name
    tensors: list[Tensor] = []
    values = [here(value, tensors) for value in arguments]
    named = {key: here(value, tensors) for key, value in options.items()}
    there = [t for t in tensors if isinstance(t, There)]
    if there and name not in MAY_MIX and any(t.dim() and not isinstance(t, There) for t in tensors):
        raise Mixed(f"{name} of {', '.join(f'{type(t).__name__}{tuple(t.shape)}' for t in tensors)}")
    asked = options.get("device")
    goes_there = bool(there) if asked is None else torch.device(asked) == ELSEWHERE
    if name == "aten::copy_":
        goes_there = isinstance(arguments[0], There)
    stream = options.get("generator")
    if stream is not None and (stream.initial_seed() in StreamThere.seeds) != goes_there:
        raise Mixed(f"{name}: the random generator is {'not ' * goes_there}of the other device, its numbers are")
    if asked is not None:
        named["device"] = torch.device("cpu")
    results = operation(*values, **named)
    if not goes_there:
        return results
    return back(results, {id(t.here): t for t in there})  # what works in place returns its argument


def here(value: object, tensors: list[Tensor]) -> object:
    """An argument on the CPU; its tensors, wherever they lie, are added to `tensors`. (torch's functions for this take
    longer than the smallest operations.)"""
    if isinstance(value, Tensor):
        tensors.append(value)
        return value.here if isinstance(value, There) else value
    return type(value)([here(item, tensors) for item in value]) if isinstance(value, list | tuple) else value


def back(result: object, known: dict[int, There]) -> object:
    """A result on the other device, where `known` tensors are by the id of their numbers."""
    if isinstance(result, Tensor):
        return known[id(result)] if id(result) in known else There(result)
    return type(result)([back(item, known) for item in result]) if isinstance(result, list | tuple) else result


@contextlib.contextmanager
def elsewhere() -> Iterator[None]:
    """Inside the block, every run computes on the other device, whatever device it asks for; a block in a block changes
    nothing more."""
    if any(isinstance(mode, Dispatch) for mode in _get_current_dispatch_mode_stack()):
        yield
        return

    def load_file(path, device="cpu") -> dict[str, Tensor]:
        return {name: tensor.to(device) for name, tensor in safetensors.torch.load_file(path).items()}

    def generator(self, seed: int, *names: str | int) -> torch.Generator:
        number = runtime.stream_seed(seed, *names)
        StreamThere.seeds.add(number)
        return StreamThere().manual_seed(number)

    def autocast(kind: str, *arguments, **options) -> contextlib.AbstractContextManager:
        known = kind != ELSEWHERE.type
        return original(kind, *arguments, **options) if known else contextlib.nullcontext()

    original = torch.autocast
    with (
        mock.patch.object(runtime, "_device", lambda name: ELSEWHERE),
        mock.patch.object(runtime.Runtime, "generator", generator),
        mock.patch.object(torch, "autocast", autocast),
        mock.patch("dfkd.stages.split.load_file", load_file),
        mock.patch("dfkd.pool.load_file", load_file),
        Functions(),
        Dispatch(),
    ):
        yield
