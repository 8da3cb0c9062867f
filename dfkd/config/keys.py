"""What tells cells apart: names of options, and values under dotted paths of configurations and results."""

import json
import math
import re
from collections.abc import Iterable

from dfkd.config.build import nearest

# Where the options of a cell have their names, in the order of a table's columns.
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


def lookup(node: object, path: str) -> object:
    """The value under a dotted path, or None."""
    for key in path.split("."):
        node = node.get(key) if isinstance(node, dict) else None
    return node


def measured(result: dict, path: str) -> float | None:
    """The number under a dotted path (the sum of its parts, where it has some); None where there is none."""
    value = lookup(result, path)
    if isinstance(value, dict) and all(isinstance(part, int | float) for part in value.values()):
        value = sum(value.values())
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return value if plain and math.isfinite(value) else None


def flatten(node: object, prefix: str = "") -> dict[str, object]:
    """{dotted path: scalar or list} of nested dicts."""
    if not isinstance(node, dict):
        return {prefix: node}
    leaves: dict[str, object] = {}
    for key, value in node.items():
        leaves |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return leaves


def option(config: dict, key: str) -> str | None:
    """What a configuration says under a key, as a word; None where it has no such key.

    Args:
        key: a name of NAMES or a dotted path. A part that has a name is called by it (`defense`), one without by what
            is in it (`prior`: 'bn+balance').
    """
    path = NAMES.get(key, key)
    parent = lookup(config, path.rpartition(".")[0]) if "." in path else config
    if not isinstance(parent, dict) or path.rpartition(".")[2] not in parent:
        return None
    value = lookup(config, path)
    if isinstance(value, dict):
        value = value["name"] if "name" in value else "+".join(map(str, value)) or "none"
    return word(value)


def word(value: object) -> str:
    """A value as one writes it on the command line."""
    return plain(value if isinstance(value, str) else json.dumps(value))


def plain(text: object) -> str:
    """Text on one line, without characters that no file may hold or that turn what follows around."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]+", " ", str(text))


def same(said: str, value: str | None) -> bool:
    """Whether a value is what a user said: that word, that number, or one of several with commas between."""
    if value is None:
        return False
    for one in {said, *said.split(",")}:
        try:
            if one == value or float(one) == float(value):
                return True
        except ValueError:
            continue
    return False


def all_keys(configs: Iterable[dict]) -> list[str]:
    """Every key that `option` understands for one of these configurations."""
    keys = dict.fromkeys(NAMES)
    for config in configs:
        for path in flatten(config):
            parts = path.split(".")
            if "_target_" not in parts:
                keys |= dict.fromkeys(".".join(parts[: i + 1]) for i in range(len(parts)))
    return list(keys)


def suggestion(name: str, known: Iterable[str], common: Iterable[str]) -> str:
    """'; did you mean ...?' by everything known, or the common names where nothing is near."""
    said = nearest(name, known)
    return said if "did you mean" in said else nearest(name, common)
