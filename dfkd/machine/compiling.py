"""runtime.compile=true: frozen networks are compiled by `torch.compile` where they are shown batches of one form.

The compiler makes fewer and larger kernels of everything between two convolutions. It takes 10 to 60 s for a network
and a form of its inputs, of which torch keeps a part for the next process; so it pays in long runs only.
"""

import contextlib
import contextvars
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch

_compiling = contextvars.ContextVar("compiling", default=False)


def is_compiling() -> bool:
    """Return whether frozen networks are to be compiled here."""
    return _compiling.get()


@contextlib.contextmanager
def compiling() -> Iterator[None]:
    """Context manager: frozen networks are compiled inside the block."""
    token = _compiling.set(True)
    try:
        yield
    finally:
        _compiling.reset(token)


def with_compiled_networks(function: Callable[..., Any]) -> Callable[..., Any] | None:
    """Return a function that does the same with compiled networks; None for one that asks questions (`answered`), which
    would ask them with compiled networks, too."""
    if inspect.isgeneratorfunction(function):
        return None

    def compiled_function(*arguments: Any) -> Any:
        with compiling():
            return function(*arguments)

    return compiled_function


def compiled(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Return a forward pass compiled by torch, anew for every form of its inputs."""
    return torch.compile(forward, dynamic=False, fullgraph=True)
