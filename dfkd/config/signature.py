"""What a component can be called with, the arguments that it only hands on to its parent included."""

import inspect
import typing
from collections.abc import Callable, Iterator


def parameters(target: Callable) -> dict[str, inspect.Parameter]:
    """The named parameters of a function or a class, their annotations evaluated.

    A class that adds arguments to those of its parent need not repeat them: where its `__init__` takes `**kwargs`, they
    stand for the parameters of the next `__init__` in its method resolution order, the one that `super().__init__`
    calls, and so on. A parameter of the class itself wins over one of the same name further up.

    Returns:
        the parameters by name, the class's own first; a `**` parameter among them only if it is left at the end, where
        a function takes any names, or no parent says which.
    """
    found: dict[str, inspect.Parameter] = {}
    for call, function in _chain(target):
        hints, rest = _hints(function), None
        for name, parameter in inspect.signature(call).parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                rest = parameter
            elif parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                found.setdefault(name, parameter.replace(annotation=hints.get(name, parameter.annotation)))
        if rest is None:
            return found
    return found | {rest.name: rest}


def _chain(target: Callable) -> Iterator[tuple[Callable, Callable]]:
    """What is called one after the other, as far as each hands its `**kwargs` on: (callable without self, function)."""
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
