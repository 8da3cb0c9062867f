"""Tables of numbers over groups of cells: one row per group, or a pivot table of one measure."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from dfkd.config.lookup import flatten, number_at, suggestion
from dfkd.config.paper import published
from dfkd.errors import ConfigError
from dfkd.metrics import FORMS, TABLE, Metric, columns, own_metrics
from dfkd.report.groups import Group
from dfkd.report.runs import Run

STUDENTS = {"last": "student", "best": "student_best_on_validation"}  # -> key in result.json
STUDENTS_IN_WORDS = {"last": "of the last round", "best": "best on validation"}


@dataclass(frozen=True)
class Number:
    """The values of one measure in the cells of a group.

    Attributes:
        values: the values of those cells that have one.
        form: format of a value, such as '.1f'.
        counted: whether the text includes the number of values.
        paper: a published number; if given, the text includes it and the difference of our mean to it.
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
    """A measured quantity, as a column of a table.

    Attributes:
        name: head of the column.
        path: path in result.json, for the chosen student.
        shipped: path for the last student, as used in `paper` sections.
        metric: row in the table of metrics; None for any other number in result.json.
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
        """Explanation of the column for readers; None without a metric."""
        return self.metric and self.metric.about

    def value(self, run: Run) -> float | None:
        return number_at(run.result, self.path)

    def over(self, group: Group) -> Number:
        """Return the values of a group's finished cells, without cells that have none."""
        values = (self.value(run) for run in group.done)
        return Number(tuple(value for value in values if value is not None), self.form)

    def of_teacher(self) -> "Measure | None":
        """Return the same measure of the teacher, or None if there is none."""
        if self.metric is None or not self.metric.of_teacher or not self.shipped.startswith("student."):
            return None
        path = f"teacher.{self.metric.key}"
        return Measure(f"teacher {self.metric.key}", path, path, self.metric)


def metrics_of(runs: Iterable[Run]) -> tuple[Metric, ...]:
    """Return the table of metrics, and the user-defined metrics of these cells."""
    return (*TABLE, *own_metrics(run.config for run in runs))


def measure(name: str, student: str = "last", metrics: Iterable[Metric] = TABLE) -> Measure:
    """Return the measure with this column head or path in result.json, for the student 'last' or 'best'."""
    rows = [(head, path, metric) for metric in metrics for head, path in metric.columns]
    path = next((path for head, path, _ in rows if head == name), name)
    name, metric = next(((head, metric) for head, where, metric in rows if where == path), (name, None))
    head, _, rest = path.partition(".")
    return Measure(name, f"{STUDENTS[student]}.{rest}" if head == "student" else path, path, metric)


def known_measures(names: list[str], runs: list[Run], student: str) -> list[Measure]:
    """Return the measures with these column heads or paths in result.json.

    Raises:
        ConfigError: no finished cell has a number under a name that is not a metric.
    """
    done, metrics = [run for run in runs if run.done], metrics_of(runs)
    chosen = [measure(name, student, metrics) for name in names]
    for name, m in zip(names, chosen, strict=True):
        if not any(m.value(run) is not None for run in done) and m.metric is None:
            results = [{key: value for key, value in run.result.items() if key != "config"} for run in done]
            paths = {path for result in results for path in flatten(result) if number_at(result, path) is not None}
            hint = suggestion(name, [*columns(metrics), *sorted(paths)], columns(metrics))
            raise ConfigError(f"--measures '{name}': no finished cell has it{hint}")
    return chosen


def usual_measures(groups: list[Group], student: str) -> list[Measure]:
    """Return the metrics that the cells have; the fragile share only if some cell splits its images."""
    metrics = metrics_of(run for group in groups for run in group.runs)
    every = [measure(head, student, metrics) for head in columns(metrics)]
    present = [m for m in every if any(m.over(group).values for group in groups)]
    split = any(set(measure("fragile").over(group).values) - {1.0} for group in groups)
    return [m for m in present if m.name != "fragile" or split]


@dataclass
class Table:
    """A table of text and numbers.

    Attributes:
        title: title; empty if the column heads are sufficient.
        words: number of first columns, whose text names the row.
        head: heads of the columns.
        lines: rows, with one entry per column.
        groups: group of every row; None in a pivot table, whose rows have several groups.
    """

    title: str
    words: int
    head: list[str]
    lines: list[list["str | Number"]] = field(default_factory=list)
    groups: list[Group | None] = field(default_factory=list)


def summary(groups: list[Group], measures: list[Measure]) -> Table:
    """Make a table with a row per group that has finished cells: their number, the measures, and published numbers."""
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
    """Return our number, the published number, and the difference ours - published."""
    ours, paper = m.over(group), published(group.done, m.shipped)
    theirs = Number((paper.value,) if paper else (), m.form)
    both = ours.values and theirs.values
    return [ours, theirs, Number((ours.mean - theirs.mean,) if both else (), f"+{m.form}")]


def pivot(groups: list[Group], rows: list[str], columns: list[str], m: Measure) -> Table:
    """Make a pivot table of one measure, with a row and a column per combination of values of the keys."""
    tops = list(dict.fromkeys(tuple(group.column.values()) for group in groups))
    sides = list(dict.fromkeys(tuple(group.label.values()) for group in groups))
    at = {(tuple(group.label.values()), tuple(group.column.values())): group for group in groups}
    table = Table(f"{m.name}; columns: {', '.join(columns)}", len(rows), [*rows, *(", ".join(top) for top in tops)])
    for side in sides:
        table.lines.append([*side, *(_crossing(m, at.get((side, top))) for top in tops)])
        table.groups.append(None)
    return table


def _crossing(m: Measure, group: Group | None) -> "str | Number":
    """Return an entry of a pivot table: its number, or the reason why there is none."""
    if group is None:
        return "missing"
    if not group.done:
        return ", ".join(sorted({run.status for run in group.runs}))
    paper = published(group.done, m.shipped)
    return replace(m.over(group), counted=True, paper=paper.value if paper else None)
