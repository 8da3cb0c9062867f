"""Tables of numbers over groups of cells: one row a group, or a pivot of one measure."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from dfkd.config.keys import flatten, measured, suggestion
from dfkd.config.paper import published
from dfkd.errors import ConfigError
from dfkd.metrics import FORMS, TABLE, Metric, columns, own_metrics
from dfkd.report.groups import Group
from dfkd.report.runs import Run

STUDENTS = {"last": "student", "best": "student_best_on_validation"}  # -> where they stand in result.json
STUDENTS_IN_WORDS = {"last": "of the last round", "best": "best on validation"}


@dataclass(frozen=True)
class Number:
    """One measure over the cells of a group.

    Attributes:
        values: one number a cell that has it.
        form: how one is written.
        counted: whether the number of cells is written too.
        paper: a published number that is written too, with how much more ours is.
    """

    values: tuple[float, ...]
    form: str = ".1f"
    counted: bool = False
    paper: float | None = None

    @property
    def mean(self) -> float | None:
        return statistics.mean(self.values) if self.values else None

    @property
    def std(self) -> float | None:
        """Sample standard deviation; None for fewer than two values."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def __str__(self) -> str:
        """'mean ± std (n) [paper x, +difference]', the value alone for one cell, or '-' for none."""
        if not self.values:
            return "-"
        text = format(self.mean, self.form)
        text += f" ± {format(self.std, self.form)}" if self.std is not None else ""
        text += f" ({len(self.values)})" if self.counted else ""
        if self.paper is None:
            return text
        return f"{text} [paper {format(self.paper, self.form)}, {format(self.mean - self.paper, '+' + self.form)}]"


@dataclass(frozen=True)
class Measure:
    """Something measured, as a column of a table.

    Attributes:
        name: as the column is called.
        path: where it stands in result.json, with the student chosen.
        shipped: the same of the last student, as `paper` sections name it.
        metric: its row in the table of metrics; None for any other number of a result.json.
    """

    name: str
    path: str
    shipped: str
    metric: Metric | None = None

    @property
    def form(self) -> str:
        return FORMS[self.metric.form if self.metric else "number"]

    @property
    def about(self) -> str | None:
        """What a reader of the column has to know."""
        return self.metric and self.metric.about

    def value(self, run: Run) -> float | None:
        return measured(run.result, self.path)

    def over(self, group: Group) -> Number:
        """The numbers of a group's finished cells; those without it are left out."""
        values = (self.value(run) for run in group.done)
        return Number(tuple(value for value in values if value is not None), self.form)

    def of_teacher(self) -> "Measure | None":
        """The same measure of the teacher, or None if it has none."""
        if self.metric is None or not self.metric.of_teacher or not self.shipped.startswith("student."):
            return None
        path = f"teacher.{self.metric.key}"
        return Measure(f"teacher {self.metric.key}", path, path, self.metric)


def metrics_of(runs: Iterable[Run]) -> tuple[Metric, ...]:
    """The table of metrics, and what these cells add to it."""
    return (*TABLE, *own_metrics(run.config for run in runs))


def measure(name: str, student: str = "last", metrics: Iterable[Metric] = TABLE) -> Measure:
    """A measure by the head of its column or its path in result.json, of one of the two students."""
    rows = [(head, path, metric) for metric in metrics for head, path in metric.columns]
    path = next((path for head, path, _ in rows if head == name), name)
    name, metric = next(((head, metric) for head, where, metric in rows if where == path), (name, None))
    head, _, rest = path.partition(".")
    return Measure(name, f"{STUDENTS[student]}.{rest}" if head == "student" else path, path, metric)


def known_measures(names: list[str], runs: list[Run], student: str) -> list[Measure]:
    """The measures of these names.

    Raises:
        ConfigError: no finished cell has a number of that name.
    """
    done, metrics = [run for run in runs if run.done], metrics_of(runs)
    chosen = [measure(name, student, metrics) for name in names]
    for given, wanted in zip(names, chosen, strict=True):
        if not any(wanted.value(run) is not None for run in done) and wanted.metric is None:
            results = [{key: value for key, value in run.result.items() if key != "config"} for run in done]
            paths = {path for result in results for path in flatten(result) if measured(result, path) is not None}
            said = suggestion(given, [*columns(metrics), *sorted(paths)], columns(metrics))
            raise ConfigError(f"--measures '{given}': no finished cell has it{said}")
    return chosen


def usual_measures(groups: list[Group], student: str) -> list[Measure]:
    """What the cells have of the table of metrics, less a fragile share where nothing was split."""
    metrics = metrics_of(run for group in groups for run in group.runs)
    every = [measure(head, student, metrics) for head in columns(metrics)]
    found = [m for m in every if any(m.over(group).values for group in groups)]
    split = any(set(measure("fragile").over(group).values) - {1.0} for group in groups)
    return [m for m in found if m.name != "fragile" or split]


@dataclass
class Table:
    """What is written.

    Attributes:
        title: what the numbers are, where the columns do not say so.
        words: so many first columns are words that name the row.
        head: the columns.
        lines: one entry a column.
        groups: the group of every line; None in a pivot, where a line is several.
    """

    title: str
    words: int
    head: list[str]
    lines: list[list["str | Number"]] = field(default_factory=list)
    groups: list[Group | None] = field(default_factory=list)


def summary(groups: list[Group], measures: list[Measure]) -> Table:
    """One row a group that has finished cells: how many, its measures, and what was published beside ours."""
    groups = [group for group in groups if group.done]
    labels = list(dict.fromkeys(column for group in groups for column in group.label))
    compared = [m for m in measures if any(published(group.done, m.shipped) for group in groups)]
    head = [*labels, "n"]
    for m in measures:
        head += [m.name, f"{m.name}, paper", f"{m.name} - paper"] if m in compared else [m.name]
    table = Table("", len(labels), head)
    for group in groups:
        line: list[str | Number] = [group.label.get(column, "-") for column in labels]
        line.append(Number((len(group.done),), ".0f"))
        for m in measures:
            line += _compared(m, group) if m in compared else [m.over(group)]
        table.lines.append(line)
        table.groups.append(group)
    return table


def _compared(m: Measure, group: Group) -> list[Number]:
    """Ours, the published one, and how much more ours is."""
    ours, paper = m.over(group), published(group.done, m.shipped)
    theirs = Number((paper.value,) if paper else (), m.form)
    both = ours.values and theirs.values
    return [ours, theirs, Number((ours.mean - theirs.mean,) if both else (), f"+{m.form}")]


def pivot(groups: list[Group], rows: list[str], columns: list[str], m: Measure) -> Table:
    """One measure: a row a combination of the row keys, a column a combination of the column keys."""
    tops = list(dict.fromkeys(tuple(group.column.values()) for group in groups))
    sides = list(dict.fromkeys(tuple(group.label.values()) for group in groups))
    at = {(tuple(group.label.values()), tuple(group.column.values())): group for group in groups}
    table = Table(f"{m.name}; columns: {', '.join(columns)}", len(rows), [*rows, *(", ".join(top) for top in tops)])
    for side in sides:
        table.lines.append([*side, *(_crossing(m, at.get((side, top))) for top in tops)])
        table.groups.append(None)
    return table


def _crossing(m: Measure, group: Group | None) -> "str | Number":
    """A cell of a pivot: its numbers, or why there are none."""
    if group is None:
        return "missing"
    if not group.done:
        return ", ".join(sorted({run.status for run in group.runs}))
    paper = published(group.done, m.shipped)
    return replace(m.over(group), counted=True, paper=paper.value if paper else None)
