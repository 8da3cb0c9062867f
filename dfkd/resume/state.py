"""The state of objects as plain data: `Extractor` extracts it, and `Restorer` restores it into objects of a new run.

`Extractor` walks through an object and everything it refers to. Tensors, numbers, strings and containers of them are
data. Objects (networks, optimizers, schedulers, random generators, objects of any other class) are never created from
data: a new run creates them by its own code, and `Restorer` restores their content. So no class or function is called
because a file names it. Functions and frozen dataclasses are constants. Anything else raises `CannotSave`, and so does
an object that was created during the loops and would be missing in a new run: no state is lost silently.

A class may define two methods that change this for its objects:
    checkpoint_state() -> {attribute: value}   only these attributes are saved, not those that can be computed again
    checkpoint_expect(data)                    called before data are restored, to create parts that a new object lacks
"""

import contextlib
import enum
import functools
import logging
import random
import re
import types
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

SCALARS = (type(None), bool, int, float, str)
DICTS = (dict, OrderedDict, Counter, defaultdict)
CONSTANTS = (
    *(types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType, type, functools.partial),
    *(torch.dtype, torch.device, torch.layout, torch.memory_format, enum.Enum, PurePath, re.Pattern, logging.Logger),
    *(bytes, complex, range, slice, frozenset),
)
# Attributes of every module apart from its parameters, buffers, submodules and mode: hooks, which are code.
HOOKS = vars(nn.Module()).keys() - {"training", "_parameters", "_buffers", "_modules"}


class CannotSave(Exception):
    """The state of an object cannot be extracted, or could not be restored into an object of a new run."""


class CheckpointMismatch(Exception):
    """Data do not fit the objects into which they should be restored: another program has saved them."""


@dataclass
class ObjectState:
    """The state of an object.

    Attributes:
        kind: qualified name of its class.
        data: its content as plain data.
    """

    kind: str
    data: Any


@dataclass
class Reference:
    """A reference to an object that was found at another path before."""

    path: str


CONSTANT = ...  # in the data, in place of a constant


def attributes(thing: Any) -> dict[str, Any]:
    """Return {name: value} of the attributes of an object that belong to its state."""
    if has(thing, "checkpoint_state"):
        return thing.checkpoint_state()
    skipped = HOOKS if isinstance(thing, nn.Module) else ()
    return {name: value for name, value in vars(thing).items() if name not in skipped}


def is_constant(thing: Any) -> bool:
    return isinstance(thing, CONSTANTS) or (is_dataclass(thing) and thing.__dataclass_params__.frozen)


def is_data(thing: Any) -> bool:
    """Return whether a value is a tensor or array of which only the values count, not the identity as a parameter."""
    if isinstance(thing, Tensor):
        return not (isinstance(thing, nn.Parameter) or (thing.requires_grad and thing.is_leaf))
    return isinstance(thing, np.ndarray | np.generic) and not thing.dtype.hasobject


def is_key(thing: Any) -> bool:
    return type(thing) in SCALARS or (type(thing) is tuple and all(map(is_key, thing)))


def has(thing: Any, method: str) -> bool:
    """Return whether the class of an object has a method."""
    return callable(getattr(type(thing), method, None))


class Extractor:
    """Extracts the state of objects as plain data. One instance serves for all objects of a checkpoint.

    Attributes:
        outline: {path: class of the object, or the constant itself}; for an optimizer (class, paths of its parameters).
        expecting: paths of the objects that create missing parts themselves (`checkpoint_expect`).
    """

    def __init__(self):
        self.outline: dict[str, Any] = {}
        self.expecting: list[str] = []
        self._paths: dict[int, str] = {}
        self._seen: list[Any] = []  # keeps the objects alive, so that their ids in `_paths` stay unique

    def __call__(self, thing: Any, path: str) -> Any:
        """Return the plain data of an object. Tensors are not copied.

        Args:
            thing: the object.
            path: its path from the named part, such as 'student.net', for `Reference`, the outline and messages.

        Raises:
            CannotSave: the message names the object and its path.
        """
        if type(thing) in SCALARS:
            return thing
        if is_data(thing):
            return thing.detach() if isinstance(thing, Tensor) else thing
        if type(thing) in (tuple, torch.Size):
            return tuple(self(item, f"{path}[{i}]") for i, item in enumerate(thing))
        if id(thing) in self._paths:
            return Reference(self._paths[id(thing)])
        self._paths[id(thing)] = path
        self._seen.append(thing)
        if type(thing) is set and not all(map(is_key, thing)):
            raise CannotSave(f"{path} is a set of objects")
        if type(thing) in (list, set, deque):
            items = [self(item, f"{path}[{i}]") for i, item in enumerate(thing)]
            return deque(items, thing.maxlen) if isinstance(thing, deque) else type(thing)(items)
        if type(thing) in DICTS:
            return self._dict(thing, path)
        if is_constant(thing):
            self.outline[path] = thing
            return CONSTANT
        self.outline[path] = type(thing)
        return ObjectState(type(thing).__qualname__, self._inside(thing, path))

    def _dict(self, thing: dict, path: str) -> dict:
        for key in thing:
            if not is_key(key):
                raise CannotSave(f"{path} has a key of the kind {type(key).__name__}")
        if type(thing) is defaultdict:
            self.outline[path] = defaultdict
        data = {key: self(value, f"{path}.{key}") for key, value in thing.items()}
        return type(thing)(data) if type(thing) in (OrderedDict, Counter) else data

    def _inside(self, thing: Any, path: str) -> Any:
        if isinstance(thing, Tensor):
            return {"values": thing.detach(), "requires_grad": thing.requires_grad}
        if isinstance(thing, torch.Generator):
            return thing.get_state()
        if isinstance(thing, random.Random):
            return thing.getstate()
        if isinstance(thing, np.random.Generator):
            return self(thing.bit_generator.state, f"{path}.state")
        if isinstance(thing, np.random.RandomState):
            return self(thing.get_state(legacy=False), f"{path}.state")
        if isinstance(thing, torch.optim.Optimizer):
            return self._optimizer(thing, path)
        slots = any(getattr(kind, "__slots__", ()) for kind in type(thing).__mro__)
        if isinstance(thing, Iterator) or slots or not hasattr(thing, "__dict__"):
            raise CannotSave(f"{path} is of the kind {type(thing).__name__}, of which no state can be taken")
        if has(thing, "checkpoint_expect"):
            self.expecting.append(path)
        return {name: self(value, f"{path}.{name}") for name, value in attributes(thing).items()}

    def _optimizer(self, optimizer: torch.optim.Optimizer, path: str) -> dict:
        groups = [group["params"] for group in optimizer.param_groups]
        data = {"params": self(groups, f"{path}.params"), **self(optimizer.state_dict(), f"{path}.state")}
        order = tuple(self._paths[id(p)] for group in groups for p in group)
        self.outline[path] = (type(optimizer), order)
        return data

    def check(self, fresh: Mapping[str, Any]) -> None:
        """Raise CannotSave unless the state could be restored into the objects of a new run.

        Args:
            fresh: outline of the objects as a new run creates them.
        """
        for path, entry in self.outline.items():
            if any(path.startswith(f"{owner}.") for owner in self.expecting):
                continue
            if path not in fresh:
                raise CannotSave(f"{path} ({_name(entry)}) was not there from the start")
            if not _equal(entry, fresh[path]):
                raise CannotSave(f"{path} is another {_name(entry)} than at the start")


def _name(entry: Any) -> str:
    entry = entry[0] if isinstance(entry, tuple) else entry
    return entry.__name__ if isinstance(entry, type) else type(entry).__name__


def _equal(a: Any, b: Any) -> bool:
    with contextlib.suppress(Exception):  # values that cannot be compared are not equal
        return a is b or bool(a == b)
    return False


class Restorer:
    """Restores plain data into objects of a new run. It must be called for the same parts and in the same order as
    `Extractor`."""

    def __init__(self):
        self._at: dict[str, Any] = {}
        self._used: dict[int, Any] = {}

    def __call__(self, existing: Any, data: Any, path: str) -> Any:
        """Restore one value.

        Args:
            existing: the object of the new run at this path, or None.
            data: what `Extractor` returned for this path.
            path: the path, for `Reference` and messages.

        Returns:
            the value that belongs at this path: `existing` with its state restored where it is an object or container;
            else `data`.

        Raises:
            CheckpointMismatch: `existing` is not of the class from which the data were taken.
        """
        if isinstance(data, Reference):
            return self._at[data.path]
        if data is CONSTANT:
            if not is_constant(existing):
                raise CheckpointMismatch(f"{path} should be a constant, but is a {type(existing).__name__}")
            self._at[path] = existing
            return existing
        if isinstance(data, ObjectState):
            if type(existing).__qualname__ != data.kind or id(existing) in self._used:
                raise CheckpointMismatch(
                    f"{path} should be a {data.kind} of its own, but is a {type(existing).__name__}"
                )
            self._at[path] = self._used[id(existing)] = existing
            self._fill(existing, data.data, path)
            return existing
        if type(data) is tuple:
            items = existing if isinstance(existing, tuple) and len(existing) == len(data) else [None] * len(data)
            made = [self(old, new, f"{path}[{i}]") for i, (old, new) in enumerate(zip(items, data, strict=True))]
            return torch.Size(made) if isinstance(existing, torch.Size) else tuple(made)
        if isinstance(data, list | set | deque | dict):
            return self._container(existing, data, path)
        return data

    def _container(self, existing: Any, data: Any, path: str) -> Any:
        """Restore a container. An existing one of the same type is reused, since other objects may refer to it."""
        same_type = type(existing) is type(data) or (isinstance(existing, dict) and isinstance(data, dict))
        target = existing if same_type and id(existing) not in self._used else type(data)()
        self._at[path] = self._used[id(target)] = target
        if isinstance(data, dict):
            old = dict(target)
            target.clear()
            target.update({key: self(old.get(key), value, f"{path}.{key}") for key, value in data.items()})
            return target
        old = list(target)
        items = [self(old[i] if i < len(old) else None, value, f"{path}[{i}]") for i, value in enumerate(data)]
        if isinstance(data, deque) and target.maxlen != data.maxlen:
            target = self._at[path] = deque(items, data.maxlen)
            return target
        target.clear()
        target.update(items) if isinstance(data, set) else target.extend(items)
        return target

    def _fill(self, thing: Any, data: Any, path: str) -> None:
        if isinstance(thing, Tensor):
            thing.data = data["values"]  # the object itself must stay: optimizers refer to it
            thing.requires_grad_(data["requires_grad"])
        elif isinstance(thing, torch.Generator):
            thing.set_state(data)
        elif isinstance(thing, random.Random):
            thing.setstate(data)
        elif isinstance(thing, np.random.Generator):
            thing.bit_generator.state = data
        elif isinstance(thing, np.random.RandomState):
            thing.set_state(data)
        elif isinstance(thing, torch.optim.Optimizer):
            self._optimizer(thing, data, path)
        else:
            self._object(thing, data, path)

    def _optimizer(self, optimizer: torch.optim.Optimizer, data: dict, path: str) -> None:
        before = [p for group in optimizer.param_groups for p in group["params"]]
        groups = self([group["params"] for group in optimizer.param_groups], data["params"], f"{path}.params")
        after = [p for group in groups for p in group]
        if len(after) != len(before) or any(a is not b for a, b in zip(after, before, strict=True)):
            raise CheckpointMismatch(f"{path} optimises other parameters")
        state = self(None, {key: data[key] for key in ("state", "param_groups")}, f"{path}.state")
        optimizer.load_state_dict(state)

    def _object(self, thing: Any, data: dict, path: str) -> None:
        if has(thing, "checkpoint_expect"):
            thing.checkpoint_expect(data)
        old = attributes(thing)
        new = {name: self(old.get(name), value, f"{path}.{name}") for name, value in data.items()}
        for name in old.keys() - new.keys():
            vars(thing).pop(name, None)
        vars(thing).update(new)
