"""From configuration to objects: the only place where a `_target_` becomes code.

Every node is bound to the signature of what it names before anything is called, and all mistakes are reported at
once, each with the nearest valid name. A component asks for what it needs from its surroundings by naming it in its
signature: `shape`, `classes`, `prior`, `real`, ... (the context).
"""

import contextlib
import difflib
import importlib
import math
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any

from dfkd.config.signature import parameters
from dfkd.errors import ConfigError

TARGET, NAME = "_target_", "name"
FAILED = object()  # stands for an object that was not made


class Builder:
    """Builds nodes and collects what is wrong with them.

    Args:
        context: values a component may ask for by name. None means: not given, the component's own default stays.
    """

    def __init__(self, **context: Any):
        self.context = context
        self.problems: list[str] = []

    def build(self, node: Any, where: str) -> Any:
        """The object a node describes: `_target_` nodes are called, other dicts and lists are built item by item.

        A problem is noted in `problems`, and nothing more is built on top of what failed.

        Args:
            node: plain dicts, lists and scalars (a resolved configuration).
            where: the node's dotted path, for messages.
        """
        return self._walk(node, where, call=True)

    def bind(self, node: Any, where: str) -> None:
        """Only check names, missing values and types, below this node too; call nothing."""
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
        """Call a function of this package with a plain group of options, checked like a node."""
        known = len(self.problems)
        complete = self._bind(function, arguments, where)
        return FAILED if len(self.problems) > known else self._made(function, complete, where)

    def raise_problems(self) -> None:
        """Raise ConfigError with everything noted so far, if anything was."""
        if self.problems:
            raise ConfigError("\n".join(self.problems))

    def _made(self, target: Callable, arguments: dict, where: str) -> Any:
        try:
            return target(**arguments)
        except (ValueError, OSError) as error:
            self.problems.append(f"{where}: {error}")
        except (TypeError, AttributeError, LookupError, RuntimeError) as error:  # a value of a kind it did not expect
            given = ", ".join(
                f"{k}={v!r}" for k, v in arguments.items() if isinstance(v, int | float | str | list | dict)
            )
            self.problems.append(f"{where}: cannot be made of {given} ({str(error).splitlines()[0]})")
        return FAILED

    def _locate(self, path: str, where: str) -> Callable | None:
        module, _, name = str(path).rpartition(".")
        try:
            found = importlib.import_module(module)
        except (ImportError, ValueError) as error:
            self.problems.append(
                f"{where}._target_: cannot import '{path}' ({error}); a module of your own must lie in the folder you "
                f"start from, or on PYTHONPATH"
            )
            return None
        if not hasattr(found, name):
            self.problems.append(f"{where}._target_: {module} has no '{name}'{nearest(name, dir(found))}")
            return None
        return getattr(found, name)

    def _bind(self, target: Callable, arguments: dict, where: str) -> dict:
        """Check the arguments against the signature and add what it asks of the context."""
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
        """The value as the annotation wants it (only numbers, booleans and strings are checked)."""
        choices = set(typing.get_args(hint)) if _is_union(hint) else {hint}
        plain = choices & {int, float, bool, str}
        if not plain or value is FAILED or (value is None and type(None) in choices):
            return value
        if float in plain and isinstance(value, str) and str not in plain:
            with contextlib.suppress(ConfigError):
                return number(value)
        if isinstance(value, bool):
            fits = bool in plain
        elif isinstance(value, int):
            fits = bool(plain & {int, float})
        elif isinstance(value, float):
            fits = float in plain or (int in plain and value.is_integer())
            value = int(value) if fits and float not in plain else value
        elif isinstance(value, str):
            fits = str in plain
        else:
            fits = plain != choices - {type(None)}  # a list or an object where the annotation allows for one
        if not fits:
            self.problems.append(f"{where} must be {_describe(hint)}, got {value!r}")
        return value


def nearest(name: str, known: typing.Iterable[str]) -> str:
    """'; did you mean ...?' or '; known: ...' for an unknown name."""
    known = [k for k in known if not k.startswith("_")]
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; known: {', '.join(sorted(known))}" if known else ""


def _is_union(hint: Any) -> bool:
    """Whether an annotation allows for several types; Python 3.10 writes `int | None = None` in the older form."""
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
    """A finite number, or a fraction written as a string ('8/255').

    Raises:
        ConfigError: it is neither.
    """
    try:
        top, _, bottom = str(value).partition("/")
        found = float(top) / float(bottom or 1)
    except (ValueError, ZeroDivisionError) as error:
        raise ConfigError(f"'{value}' is not a number; write 0.03 or 8/255") from error
    if not math.isfinite(found):
        raise ConfigError(f"'{value}' is not a finite number; write 0.03 or 8/255")
    return found


def not_finite(node: Any, where: str = "") -> Iterator[str]:
    """A sentence about every NaN and infinity in nested dicts and lists: no option means anything by them."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from not_finite(value, f"{where}.{key}" if where else str(key))
    elif isinstance(node, list):
        for place, value in enumerate(node):
            yield from not_finite(value, f"{where}[{place}]")
    elif isinstance(node, float) and not math.isfinite(node):
        yield f"{where} must be a finite number, got {node}"
