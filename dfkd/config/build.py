"""From configuration to objects: the only module that imports and calls a `_target_`.

Every node is checked against the signature of its `_target_` before anything is called. All mistakes are reported at
once, each with the nearest valid name. The builder also passes values that are not in the configuration (the context:
`shape`, `classes`, `prior`, `real`, ...) to every component whose signature has a parameter of that name.
"""

import contextlib
import difflib
import importlib
import math
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any

from dfkd.config.memo import Memo
from dfkd.config.signature import parameters
from dfkd.errors import ConfigError

TARGET, NAME = "_target_", "name"
SCALARS = (int, float, bool, str)
FAILED = object()  # in place of an object that could not be made


class Builder:
    """Builds the objects that configuration nodes describe, and collects the mistakes in them.

    Args:
        memo: objects that earlier builders made; one that is made again of the same is taken from there. None: every
            object is made anew.
        context: values that components get by the names of their parameters. None means "not given": the default of
            the component's parameter is used.
    """

    def __init__(self, memo: Memo | None = None, **context: Any):
        self.memo = memo
        self.context = context
        self.problems: list[str] = []

    def build(self, node: Any, where: str) -> Any:
        """Return the object that a node describes: a `_target_` is called; other dicts and lists are built recursively.

        A mistake is added to `problems`, and a node that contains it gives FAILED.

        Args:
            node: plain dicts, lists and scalars (a resolved configuration).
            where: the node's dotted path, for messages.
        """
        return self._walk(node, where, call=True)

    def bind(self, node: Any, where: str) -> None:
        """Check names, missing values and types in a node, and call nothing. Mistakes are added to `problems`."""
        self._walk(node, where, call=False)

    def _walk(self, node: Any, where: str, call: bool) -> Any:
        if isinstance(node, list):
            return [self._walk(item, f"{where}[{i}]", call) for i, item in enumerate(node)]
        if not isinstance(node, dict):
            return node
        inner = {k: self._walk(v, f"{where}.{k}", call) for k, v in node.items() if k not in (TARGET, NAME)}
        if TARGET not in node:
            return inner
        known = len(self.problems)
        target = self._locate(node[TARGET], where)
        if target is None:
            return FAILED
        arguments = self._bind(target, inner, where)
        if not call or len(self.problems) > known or any(value is FAILED for value in inner.values()):
            return FAILED
        return self._made(target, arguments, where)

    def call(self, function: Callable, arguments: dict, where: str) -> Any:
        """Call a function of this package with a section of options, which is checked like a node."""
        known = len(self.problems)
        complete = self._bind(function, arguments, where)
        return FAILED if len(self.problems) > known else self._made(function, complete, where)

    def once(self, place: str, arguments: Any, make: Callable[[], Any]) -> Any:
        """Return `make()`, or its earlier result for the same place and arguments if there is a memo (`Memo.once`)."""
        return make() if self.memo is None else self.memo.once(place, arguments, make)

    def raise_problems(self) -> None:
        """Raise ConfigError with all problems so far, one per line, if there are any."""
        if self.problems:
            raise ConfigError("\n".join(self.problems))

    def _made(self, target: Callable, arguments: dict, where: str) -> Any:
        try:
            return self.once(where, [target, arguments], lambda: target(**arguments))
        except (ValueError, OSError) as error:
            self.problems.append(f"{where}: {error}")
        except (TypeError, AttributeError, LookupError, RuntimeError) as error:  # a value of an unexpected type
            values = ", ".join(
                f"{k}={v!r}" for k, v in arguments.items() if isinstance(v, int | float | str | list | dict)
            )
            self.problems.append(f"{where}: cannot be made of {values} ({str(error).splitlines()[0]})")
        return FAILED

    def _locate(self, path: str, where: str) -> Callable | None:
        module, _, name = str(path).rpartition(".")
        try:
            imported = importlib.import_module(module)
        except (ImportError, ValueError) as error:
            self.problems.append(
                f"{where}._target_: cannot import '{path}' ({error}); a module of your own must lie in the folder you "
                f"start from, or on PYTHONPATH"
            )
            return None
        if not hasattr(imported, name):
            self.problems.append(f"{where}._target_: {module} has no '{name}'{nearest(name, dir(imported))}")
            return None
        return getattr(imported, name)

    def _bind(self, target: Callable, arguments: dict, where: str) -> dict:
        """Check the arguments against the signature, and add the values of the context that it has parameters for."""
        named = parameters(target)
        anything = any(p.kind is p.VAR_KEYWORD for p in named.values())
        named = {name: p for name, p in named.items() if p.kind is not p.VAR_KEYWORD}
        for key in arguments:
            if key not in named and not anything:
                own = [name for name in named if name not in self.context]
                self.problems.append(f"{where}.{key}: there is no such option{nearest(key, own)}")
        complete = dict(arguments)
        for name, parameter in named.items():
            if name not in complete and self.context.get(name) is not None:
                complete[name] = self.context[name]
            elif name not in complete and parameter.default is parameter.empty:
                self.problems.append(f"{where}.{name} is missing: set it to {_describe(parameter.annotation)}")
        for key, value in arguments.items():
            if key in named:
                complete[key] = self._typed(value, named[key].annotation, f"{where}.{key}")
        return complete

    def _typed(self, value: Any, hint: Any, where: str) -> Any:
        """Return the value in its annotated type: a string such as '8/255' becomes a float, a whole float an int.

        Only numbers, booleans, strings and the lack of a list are checked. A value of a wrong type is added to
        `problems`.
        """
        choices = set(typing.get_args(hint)) if _is_union(hint) else {hint}
        if all(typing.get_origin(c) in (list, tuple) for c in choices - {type(None)}) and isinstance(value, SCALARS):
            self.problems.append(f"{where} must be a list such as [{value},...], got {value!r}")
            return value
        scalars = choices & {*SCALARS}
        if not scalars or value is FAILED or (value is None and type(None) in choices):
            return value
        if float in scalars and isinstance(value, str):
            with contextlib.suppress(ConfigError):
                return number(value)
        if isinstance(value, bool):
            fits = bool in scalars
        elif isinstance(value, int):
            fits = bool(scalars & {int, float})
        elif isinstance(value, float):
            fits = float in scalars or (int in scalars and value.is_integer())
            value = int(value) if fits and float not in scalars else value
        elif isinstance(value, str):
            fits = str in scalars
        else:
            fits = scalars != choices - {type(None)}  # a list or an object, if the annotation has other types too
        if not fits:
            self.problems.append(f"{where} must be {_describe(hint)}, got {value!r}")
        return value


def nearest(name: str, known: typing.Iterable[str]) -> str:
    """Return '; did you mean ...?' or '; known: ...' for an unknown name."""
    known = [k for k in known if not k.startswith("_")]
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; known: {', '.join(sorted(known))}" if known else ""


def _is_union(hint: Any) -> bool:
    """Return whether an annotation is a union. Python 3.10 turns `x: int | None = None` into `typing.Union`."""
    return typing.get_origin(hint) in (types.UnionType, typing.Union)


def _describe(hint: Any) -> str:
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}
    if hint in words:
        return words[hint]
    if _is_union(hint):
        parts = [words.get(part, "null" if part is type(None) else "a value") for part in typing.get_args(hint)]
        return " or ".join(dict.fromkeys(parts))
    return "a value"


def number(value: float | str) -> float:
    """Return the value of a number, or of a fraction written as a string ('8/255').

    Raises:
        ConfigError: it is neither, or it is not finite.
    """
    try:
        top, _, bottom = str(value).partition("/")
        result = float(top) / float(bottom or 1)
    except (ValueError, ZeroDivisionError) as error:
        raise ConfigError(f"'{value}' is not a number; write 0.03 or 8/255") from error
    if not math.isfinite(result):
        raise ConfigError(f"'{value}' is not a finite number; write 0.03 or 8/255")
    return result


def not_finite(node: Any, where: str = "") -> Iterator[str]:
    """Yield a message about every NaN and infinity in nested dicts and lists; no option accepts them."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from not_finite(value, f"{where}.{key}" if where else str(key))
    elif isinstance(node, list):
        for i, value in enumerate(node):
            yield from not_finite(value, f"{where}[{i}]")
    elif isinstance(node, float) and not math.isfinite(node):
        yield f"{where} must be a finite number, got {node}"
