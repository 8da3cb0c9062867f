"""The parameters of a component, with those that it only passes on to its parent class."""

import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping


@functools.cache  # a sweep asks for the same components in every cell
def parameters(target: Callable) -> Mapping[str, inspect.Parameter]:
    """Return the named parameters of a function or a class, with evaluated annotations.

    A class need not repeat the parameters of its parent. If its `__init__` takes `**kwargs`, these stand for the
    parameters of the next `__init__` in the method resolution order, which `super().__init__` calls, and so on. A
    parameter of the class itself overrides one of the same name in a parent.

    Returns:
        {name: parameter}, those of the class itself first. A `**` parameter is included only if the last function in
        the chain has one, and so accepts any name.
    """
    named: dict[str, inspect.Parameter] = {}
    for call, function in _chain(target):
        hints, rest = _hints(function), None
        for name, parameter in inspect.signature(call).parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                rest = parameter
            elif parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                named.setdefault(name, parameter.replace(annotation=hints.get(name, parameter.annotation)))
        if rest is None:
            return types.MappingProxyType(named)
    return types.MappingProxyType(named | {rest.name: rest})


def _chain(target: Callable) -> Iterator[tuple[Callable, Callable]]:
    """Yield (callable without `self`, function) for a function; for a class, for each `__init__` in its method
    resolution order."""
    if not inspect.isclass(target):
        yield target, target
        return
    yield target, target.__init__
    makers = [kind.__init__ for kind in target.__mro__ if "__init__" in vars(kind)]
    for function in makers[1:]:
        yield function.__get__(target), function  # bound, so that it has no `self`


def _hints(function: Callable) -> dict[str, typing.Any]:
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError):
        return {}
