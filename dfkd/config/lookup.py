"""Values of configurations and results by dotted path or short name: tables and messages tell cells apart by them."""

import json
import math
import re
from collections.abc import Iterable

from dfkd.config.build import nearest

# {column of a table: path of its value in the configuration}, in the order of the columns.
NAMES = {
    "scenario": "ntl_scenario.name",
    "ID": "ntl_scenario.id.name",
    "OOD": "ntl_scenario.ood.name",
    "teacher": "teacher.name",
    "teacher network": "teacher.network.name",
    "synthesizer": "synthesizer.name",
    "noise": "noise.name",
    "student network": "student.network.name",
    "defense": "defense.name",
}


def value_at(node: object, path: str) -> object:
    """Return the value under a dotted path; None if the path does not exist."""
    for key in path.split("."):
        node = node.get(key) if isinstance(node, dict) else None
    return node


def number_at(result: dict, path: str) -> float | None:
    """Return the number under a dotted path of a result (of a dict of numbers: their sum); None if it is not finite."""
    value = value_at(result, path)
    if isinstance(value, dict) and all(isinstance(part, int | float) for part in value.values()):
        value = sum(value.values())
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and math.isfinite(value) else None


def flatten(node: object, prefix: str = "") -> dict[str, object]:
    """Return {dotted path: scalar or list} of nested dicts."""
    if not isinstance(node, dict):
        return {prefix: node}
    leaves: dict[str, object] = {}
    for key, value in node.items():
        leaves |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return leaves


def option(config: dict, key: str) -> str | None:
    """Return the value of a configuration under a key, as text; None if there is no such key.

    Args:
        key: a name of NAMES or a dotted path. A section with an entry `name` gives that name (`defense`: 'atesc'). A
            section without one gives the names of its entries (`prior`: 'bn+balance').
    """
    path = NAMES.get(key, key)
    parent = value_at(config, path.rpartition(".")[0]) if "." in path else config
    if not isinstance(parent, dict) or path.rpartition(".")[2] not in parent:
        return None
    value = value_at(config, path)
    if isinstance(value, dict):
        value = value["name"] if "name" in value else "+".join(map(str, value)) or "none"
    return as_typed(value)


def as_typed(value: object) -> str:
    """Return a value as the user writes it on the command line."""
    return one_line(value if isinstance(value, str) else json.dumps(value))


def one_line(text: object) -> str:
    """Return the text on one line, with spaces in place of control, surrogate and text-direction characters."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]+", " ", str(text))


def matches(typed: str, value: str | None) -> bool:
    """Return whether a value matches what the user typed: the same text, an equal number, or one of several separated
    by commas.

    Args:
        typed: the text that the user typed.
        value: the value of the configuration (`option`).
    """
    if value is None:
        return False
    for one in {typed, *typed.split(",")}:
        try:
            if one == value or float(one) == float(value):
                return True
        except ValueError:
            continue
    return False


def all_keys(configs: Iterable[dict]) -> list[str]:
    """Return every key that `option` accepts for at least one of these configurations."""
    keys = dict.fromkeys(NAMES)
    for config in configs:
        for path in flatten(config):
            parts = path.split(".")
            if "_target_" not in parts:
                keys |= dict.fromkeys(".".join(parts[: i + 1]) for i in range(len(parts)))
    return list(keys)


def suggestion(name: str, known: Iterable[str], common: Iterable[str]) -> str:
    """Return '; did you mean ...?' with the nearest known name, or '; known: ...' with common names if none is near."""
    hint = nearest(name, known)
    return hint if "did you mean" in hint else nearest(name, common)
