"""The cells of a study, and its page in docs/studies."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from dfkd.report.figures import colour
from dfkd.report.runs import Run, find
from dfkd.report.tables import Number, Table, measure, metrics_of
from dfkd.report.text import grid
from studies.statistics import holm, p_text, paired, t_interval

DOCS = Path(__file__).resolve().parents[2] / "docs" / "studies"
BEGIN, END = "<!-- measured: written by scripts/write_study.py -->", "<!-- end of what was measured -->"


@dataclass
class Page:
    """What is written into a page: Markdown with the tables, and a figure; None leaves the one that is there."""

    text: str
    figure: Figure | None


def study_cells(outputs: Path) -> tuple[list[Run], list[Run]]:
    """Return (finished cells of a study, its other cells).

    Raises:
        ConfigError: the folder holds no cells.
    """
    runs = find([outputs])
    return [run for run in runs if run.done], [run for run in runs if not run.done and run.status != "replaced"]


def write(name: str, page: Page, finished: list[Run], others: list[Run], docs: Path = DOCS) -> Path:
    """Write a study's tables between the marks of its page, docs/studies/NAME.md, and its figure beside it; the words
    before and after the marks stay.

    Args:
        page: made of the finished cells.
        others: cells without a result; the page names them and the reasons.
        docs: the folder of the pages.

    Raises:
        ValueError: the page does not have both marks.
    """
    file = docs / f"{name}.md"
    before, begin, rest = file.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{file} must hold the lines '{BEGIN}' and '{END}'")
    if page.figure is not None:
        page.figure.set_layout_engine("constrained")
        page.figure.savefig(docs / f"{name}.png", dpi=110, bbox_inches="tight")
    parts = [begin, page.text, cost(finished), *missing(others), f"![the figure of this study]({name}.png)", end]
    text = "\n\n".join(parts)
    file.write_text(before + text + after)
    return file


def missing(others: list[Run]) -> list[str]:
    """Return the lines that name the cells without a result, and why they have none."""
    return [f"{run.status.capitalize()}: `{run.name}`: {run.reason}" for run in others]


def cost(runs: list[Run]) -> str:
    """Say how many cells a study has, and how long they took."""
    seeds = {run.seed for run in runs}
    minutes = sum(run.result["seconds_this_run"] for run in runs) / 60
    return f"{len(runs)} cells, {len(seeds)} seeds, {minutes:.0f} minutes on one CPU thread."


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table; numbers are formatted by the caller."""
    return grid(Table("", 1, list(head), [list(row) for row in rows]))


def by(runs: Iterable[Run], key: Callable[[Run], object]) -> dict[object, list[Run]]:
    """Group cells by a key, in the order in which they appear."""
    groups: dict[object, list[Run]] = {}
    for run in runs:
        groups.setdefault(key(run), []).append(run)
    return groups


def by_seed(runs: Iterable[Run], head: str) -> dict[object, float]:
    """Return {seed: value} of a measure, by the head of its column or its path; cells without a value are left out.

    Raises:
        ValueError: two cells have the same seed.
    """
    runs = list(runs)
    m = measure(head, metrics=metrics_of(runs))
    if len({run.seed for run in runs}) < len(runs):
        raise ValueError(f"several cells of one seed where one is expected: {', '.join(run.name for run in runs)}")
    found = {run.seed: m.value(run) for run in runs}
    return {seed: value for seed, value in found.items() if value is not None}


def summary(runs: Iterable[Run], head: str) -> Number:
    """Return mean and sample standard deviation of a measure over cells."""
    runs = list(runs)
    m = measure(head, metrics=metrics_of(runs))
    return Number(tuple(value for run in runs if (value := m.value(run)) is not None), m.form)


def compare(groups: dict[str, list[Run]], measures: Sequence[str], control: str, tested: Sequence[str]) -> str:
    """Return a table with a row per group: n, the measures, and for the tested ones the difference to the control.

    Differences are paired by seed, with 95 % t-intervals; p-values are adjusted by Holm's method over all tests of the
    table.

    Args:
        groups: {name: cells with different seeds}.
        measures: heads of columns.
        control: name of the group with which the others are compared.
        tested: measures whose difference to the control is shown.

    Raises:
        ValueError: the control has no finished cell, or a group has several of one seed.
    """
    others = [name for name in groups if name != control]
    if control not in groups:
        raise ValueError(f"there is no finished cell of '{control}', with which the others are compared: run it first")
    tests = {
        (name, head): paired(by_seed(groups[name], head), by_seed(groups[control], head))
        for name in others
        for head in tested
    }
    adjusted = dict(zip(tests, holm([test.p for test in tests.values()]), strict=True))

    def entries(name: str, head: str) -> list[str]:
        if name == control:
            return ["", ""]
        return [str(tests[name, head]), p_text(adjusted[name, head])]

    rows = [
        [
            name,
            len(runs),
            *(summary(runs, head) for head in measures),
            *(e for head in tested for e in entries(name, head)),
        ]
        for name, runs in groups.items()
    ]
    heads = [word for head in tested for word in (f"{head} - {control}", "p (Holm)")]
    return table(["", "n", *measures, *heads], rows)


def intervals(
    groups: dict[str, list[Run]],
    head: str,
    xlabel: str,
    teacher: str | None = None,
    limits: tuple[float, float] | None = (0, 102),
) -> Figure:
    """Draw the mean of a measure in percent for every group, with its 95 % t-interval; the first group on top.

    Args:
        teacher: head of the teachers' measure, whose mean is a dotted line; None draws none.
        limits: ends of the axis in percent; None shows the intervals alone, where they are close to each other.
    """
    figure = Figure(figsize=(7, 0.3 * len(groups) + 1))
    axes = figure.subplots()
    for row, runs in enumerate(reversed(groups.values())):
        interval = t_interval(list(by_seed(runs, head).values()))
        axes.plot([interval.low, interval.high], [row, row], color=colour(0), linewidth=1)
        axes.plot(interval.mean, row, "o", color=colour(0), markersize=4)
    axes.set_yticks(range(len(groups)), reversed(groups), fontsize=8)
    label = f"{xlabel} (mean, 95 % interval)"
    if teacher is not None:
        mean = summary([run for runs in groups.values() for run in runs], teacher).mean
        axes.axvline(mean, color="black", linestyle=":", linewidth=1)
        label += "; dotted: teacher"
    axes.set(xlabel=label)
    if limits is not None:
        axes.set(xlim=limits)
    return figure
