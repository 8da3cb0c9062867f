"""Published numbers to compare with: the `paper` section of an experiment.

    paper: cifar10                          # the entries of dfkd/config/published/cifar10.yaml that fit the cell
    paper:                                  # or one entry, or a list of entries
      student.iacc: 96                      # {path of a measure in result.json: published number}
      source: CAKE, abstract, arXiv 2306.02090
      when: {synthesizer: cake_mnist}       # only for cells with these values; keys as in a table, or dotted paths

The section changes no result and is part of no hash.
"""

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import yaml

from dfkd.config.build import nearest
from dfkd.config.cell import Cell
from dfkd.config.lookup import all_keys, as_typed, flatten, matches, one_line, option, suggestion
from dfkd.errors import ConfigError
from dfkd.metrics import TABLE, columns, own_metrics
from dfkd.store.run_folder import RunFolder

WORDS = ("source", "when")
PUBLISHED = Path(__file__).parent / "published"


class Configured(Protocol):
    """An object with the configuration of a cell: a cell or a run of it."""

    config: dict


@dataclass(frozen=True)
class Published:
    """A published number and its source."""

    value: float
    source: str


def published(runs: Iterable[Configured], path: str) -> Published | None:
    """Return the published number for a measure of these cells; None unless all have the same number and source.

    Args:
        path: path of the measure in result.json, such as 'student.iacc'.
    """
    numbers = {_published(run.config, path) for run in runs}
    return numbers.pop() if len(numbers) == 1 else None


def _published(config: dict, path: str) -> Published | None:
    for entry in entries(config):
        number = _numbers(entry).get(path)
        if _is_number(number) and all(matches(as_typed(v), option(config, k)) for k, v in _conditions(entry).items()):
            return Published(float(number), one_line(entry.get("source", "")))
    return None


def entries(config: dict) -> list:
    """Return the entries of a configuration's `paper` section; an empty list for a table that does not exist."""
    section = config.get("paper") or []
    if isinstance(section, str):
        section = _shipped(section) if section in tables() else []
    return section if isinstance(section, list) else [section]


def tables() -> list[str]:
    """Return the sorted names of the tables of published numbers in dfkd/config/published."""
    return sorted(file.stem for file in PUBLISHED.glob("*.yaml"))


@functools.cache
def _shipped(name: str) -> list[dict]:
    return yaml.safe_load((PUBLISHED / f"{name}.yaml").read_text())


def problems(config: dict) -> list[str]:
    """Return a message about each mistake in a configuration's `paper` section."""
    section, texts = config.get("paper"), []
    if isinstance(section, str):  # a shipped table; a test checks its entries
        known = tables()
        return [] if section in known else [f"paper: there is no table '{section}'{nearest(section, known)}"]
    for entry in entries(config):
        if not isinstance(entry, dict):
            texts.append(f"paper: an entry is a number and its source, as student.iacc: 96, source: ...; got {entry!r}")
            continue
        numbers = _numbers(entry)
        for path, value in numbers.items():
            if path not in paths(config):
                texts.append(f"paper.{path}: there is no such measure{nearest(path, [*paths(config), *WORDS])}")
            elif not _is_number(value):
                texts.append(f"paper.{path} must be a number, got {value!r}")
        if not numbers:
            texts.append(f"paper: no number in {entry!r}; write a measure, as student.iacc: 96")
        if not isinstance(entry.get("source"), str) or not entry["source"].strip():
            texts.append(f"paper.source is missing: say where {', '.join(numbers) or 'the number'} was published")
        when = entry.get("when") or {}
        if not isinstance(when, dict):
            texts.append(f"paper.when must be keys and values, as {{synthesizer: dfq}}, got {when!r}")
            continue
        for key in _conditions(entry):
            if option(config, key) is None:
                known = all_keys([config])
                texts.append(f"paper.when.{key}: there is no such key{suggestion(key, known, known[:9])}")
    return texts


def paths(config: dict) -> list[str]:
    """Return the paths in result.json of all measures of a cell, those of a table's columns first."""
    metrics = (*TABLE, *own_metrics([config]))
    of_teacher = [f"teacher.{metric.key}" for metric in metrics if metric.of_teacher]
    return list(dict.fromkeys([*columns(metrics).values(), *of_teacher]))


def renew(cell: Cell, result: dict) -> None:
    """Copy a changed `paper` section into the result.json of a finished cell, which need not run again for it.

    Raises:
        ConfigError: the section has mistakes.
    """
    section = cell.config.get("paper")
    if result["config"].get("paper") == section:
        return
    messages = problems(cell.config)
    if messages:
        raise ConfigError("\n".join(messages))
    result["config"]["paper"] = section
    RunFolder(cell.folder).renew_result(result)


def _numbers(entry: object) -> dict[str, object]:
    """Return {path in result.json: value} of an entry; the values are not checked."""
    return flatten({k: v for k, v in entry.items() if k not in WORDS}) if isinstance(entry, dict) else {}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _conditions(entry: dict) -> dict[str, object]:
    when = entry.get("when")
    return flatten(when) if isinstance(when, dict) and when else {}
