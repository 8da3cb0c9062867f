"""Groups of cells that form one row of a table, and the names of the rows."""

import json
from dataclasses import dataclass, field

from dfkd.config.cell import content
from dfkd.config.lookup import NAMES, as_typed, flatten, option
from dfkd.report.runs import Run

SEEDS = ("seed", "seeds")


@dataclass
class Group:
    """Cells over which a mean is taken.

    Attributes:
        label: values that distinguish this row from the others, {column: value}.
        runs: its cells, including unfinished ones.
        column: in a pivot, the values that define its column, {key: value}.
    """

    label: dict[str, str]
    runs: list[Run] = field(default_factory=list)
    column: dict[str, str] = field(default_factory=dict)

    @property
    def done(self) -> list[Run]:
        return [run for run in self.runs if run.done]

    @property
    def name(self) -> str:
        """Name in figures and notes: options by their names, other values with the end of their path."""
        pairs = [*self.label.items(), *self.column.items()]
        words = (value if key in (*NAMES, "cell") else f"{_end(key)}={value}" for key, value in pairs if value != "-")
        return ", ".join(words) or "all"

    @property
    def seeds(self) -> list[str]:
        return [as_typed(run.seed) for run in self.done]


def _end(key: str) -> str:
    """Return the shortest clear end of a path: contrast_weight alone, but tv.weight."""
    *_, parent, last = ("", *key.split("."))
    return last if "_" in last or not parent else f"{parent}.{last}"


def by_content(runs: list[Run]) -> list[Group]:
    """Group cells that differ only in their seeds; labels are the options that differ between groups."""
    by_identity: dict[str, Group] = {}
    for run in runs:
        by_identity.setdefault(_identity(run), Group({})).runs.append(run)
    groups = list(by_identity.values())
    _label(groups)
    return groups


def by_keys(runs: list[Run], rows: list[str], columns: list[str]) -> list[Group]:
    """Group cells with equal values of the given keys, whatever other values differ."""
    groups: dict[str, Group] = {}
    for run in runs:
        label, column = ({key: option(run.config, key) or "-" for key in keys} for keys in (rows, columns))
        groups.setdefault(json.dumps([label, column]), Group(label, [], column)).runs.append(run)
    return list(groups.values())


def differing_names(runs: list[Run]) -> list[str]:
    """Return the names in NAMES whose values differ between these cells."""
    return [name for name in NAMES if len({option(run.config, name) for run in runs}) > 1]


def mixture(group: Group) -> list[str]:
    """Return the dotted paths, except seeds, whose values differ between the finished cells of a group; names first."""
    flat = [flatten(_settings(run)) for run in group.done]
    paths = {path for leaves in flat for path in leaves if not path.endswith("_target_")}
    mixed = (path for path in paths if len({json.dumps(leaves.get(path)) for leaves in flat}) > 1)
    return sorted(mixed, key=_names_first)


def _names_first(path: str) -> tuple[bool, str]:
    """Sort key of paths: names of options before other values, and parents before their children."""
    return not path.endswith(".name"), path.removesuffix(".name")


def of_one_pool(group: Group) -> bool:
    """Whether several students of a group have the same seeds of teacher and synthesis, and thus the same pool."""
    seeds = [run.config["seeds"] for run in group.done]
    origins = {(as_typed(seed.get("teacher")), as_typed(seed.get("synthesis"))) for seed in seeds}
    return len(origins) < len({run.name for run in group.done})


def missing_seeds(groups: list[Group]) -> list[tuple[Group, list[str]]]:
    """Return groups with the seeds that they have not finished; [] unless some group has finished all seeds."""
    every = list(dict.fromkeys(seed for group in groups for seed in group.seeds))
    if not any(set(every) <= set(group.seeds) for group in groups):
        return []
    lacking = ((group, [seed for seed in every if seed not in group.seeds]) for group in groups)
    return [(group, seeds) for group, seeds in lacking if seeds]


def undefended(group: Group, groups: list[Group]) -> Group | None:
    """Return the group that differs from this one only by defense=none; None if there is none."""

    def rest(run: Run) -> str:
        return json.dumps(_settings(run) | {"defense": None}, sort_keys=True)

    if not group.done or option(group.done[0].config, "defense") == "none":
        return None
    same = rest(group.done[0])
    for other in groups:
        if other.done and option(other.done[0].config, "defense") == "none" and rest(other.done[0]) == same:
            return other
    return None


def _settings(run: Run) -> dict:
    return {key: value for key, value in content(run.config).items() if key not in SEEDS}


def _identity(run: Run) -> str:
    return json.dumps(_settings(run), sort_keys=True)


def _label(groups: list[Group]) -> None:
    """Label groups by the options that differ, and by single values only if options do not distinguish them."""
    flat = [flatten(content(group.runs[0].config)) for group in groups]

    def called() -> list[str]:
        return [json.dumps(group.label, sort_keys=True) for group in groups]

    def add(column: str, path: str) -> None:
        for group, leaves in zip(groups, flat, strict=True):
            group.label[column] = as_typed(leaves[path]) if path in leaves else "-"

    for column, path in NAMES.items():
        if len({as_typed(leaves.get(path)) for leaves in flat}) > 1:
            add(column, path)
    paths = {path for leaves in flat for path in leaves if not path.endswith("_target_")}
    for path in sorted(paths, key=_names_first):
        if len(set(called())) == len(groups):
            break
        if path.startswith((*SEEDS, *NAMES.values())):
            continue
        values_by_label: dict[str, set] = {}
        for label, leaves in zip(called(), flat, strict=True):
            values_by_label.setdefault(label, set()).add(as_typed(leaves.get(path)))
        if any(len(values) > 1 for values in values_by_label.values()):
            add(path.removesuffix(".name"), path)
    for group in groups:
        group.label = group.label or {"cell": group.runs[0].name.rpartition("_s")[0] or group.runs[0].name}
