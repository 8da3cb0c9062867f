"""The figures of a report: the trap, learning curves, bars. This is the only module of the report with matplotlib."""

import statistics
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO, StringIO

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from dfkd.config.lookup import number_at
from dfkd.machine.environment import ignore_matplotlibrc
from dfkd.report.content import Report
from dfkd.report.groups import undefended
from dfkd.report.runs import Run
from dfkd.report.tables import Measure, measure
from dfkd.tracker import read_rows

ignore_matplotlibrc()

# Colours that colour-blind readers can distinguish (Okabe and Ito), on white and on black.
PALETTE = ("#D55E00", "#009E73", "#2B83C6", "#CC79A7", "#E69F00", "#56B4E9", "#8C6BB1", "#7A7A7A")
MARKERS = "os^D"
TRAPS = ("ASR", "OLAcc")  # measures that are high for a student in the trap
INK, FAINT = "#010203", "#040506"  # placeholders in a drawing, which the page replaces by its own colours
LEGEND = 12  # with more groups there is no legend
LONG = 52  # largest number of characters of a name in a drawing
BARS = 40  # with more groups there are no bars


def colour(i: int) -> str:
    """Return the colour of the i-th group, in all figures and next to its name."""
    return PALETTE[i % len(PALETTE)]


def marker(i: int) -> str:
    """Return the shape of the i-th group's points: another one where the colours begin again."""
    return MARKERS[i // len(PALETTE) % len(MARKERS)]


@contextmanager
def style(ink: str, salt: str) -> Iterator[None]:
    """Context manager with matplotlib's settings: text stays text, `$` has no meaning in names, and equal drawings have
    equal bytes.

    Args:
        ink: colour of text and axes.
        salt: seed of the ids in SVG files.
    """
    settings = {
        "svg.fonttype": "none",
        "svg.hashsalt": salt,
        "text.parse_math": False,
        "font.size": 9.5,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 10.5,
        "grid.color": FAINT if ink == INK else "#999999",
        "grid.alpha": 0.35,
        "legend.frameon": False,
        "legend.fontsize": 8.5,
    }
    inks = ("axes.edgecolor", "axes.labelcolor", "text.color", "xtick.color", "ytick.color")
    with matplotlib.rc_context(settings | dict.fromkeys(inks, ink)), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the browser that shows the page has other fonts
        yield


def as_svg(figure: Figure) -> str:
    """Render the figure as SVG without a background."""
    out = StringIO()
    figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return out.getvalue()


def as_png(report: Report) -> bytes | None:
    """Render the main figure of a report as PNG: the trap if it was measured, otherwise bars; None without either."""
    with style("black", "png"):
        out = BytesIO()
        figure = trap(report, "black") or bars(report, "black")
        if figure is not None:
            figure.savefig(out, format="png", dpi=130)
        return out.getvalue() or None


def trap_measures(report: Report) -> list[Measure]:
    """Return those of TRAPS that were measured."""
    every = [measure(name, report.student) for name in TRAPS]
    return [m for m in every if any(m.over(group).values for group in report.groups)]


def trap(report: Report, ink: str) -> Figure | None:
    """Plot ID accuracy against OOD behaviour: a small point per cell, a large one per group, a cross per teacher, and
    an arrow from each undefended group to its defended ones. None if no measure of TRAPS exists."""
    measures = trap_measures(report)
    if not measures:
        return None
    figure = Figure(figsize=(6.8 * len(measures), 4.6), layout="constrained")
    for axes, m in zip(figure.subplots(1, len(measures), squeeze=False)[0], measures, strict=True):
        _trap(axes, report, m, ink)
    return figure


def _trap(axes: Axes, report: Report, m: Measure, ink: str) -> None:
    accuracy, middles = measure("student ID", report.student), {}
    crosses = {(x, y) for _, x, y in _points(report.done, measure("teacher ID"), m.of_teacher())}
    axes.scatter([x for x, _ in crosses], [y for _, y in crosses], marker="x", color=ink, label="teacher")
    for i, group in enumerate(report.groups):
        points = _points(group.done, accuracy, m)
        if not points:
            continue
        for name, x, y in points:
            axes.scatter(x, y, s=16, color=colour(i), alpha=0.7, gid=_gid(i, f"{name}: {_pair(x, y)}"))
        x, y = middles[i] = statistics.mean(x for _, x, _ in points), statistics.mean(y for _, _, y in points)
        tip = f"{group.name}: {_pair(x, y)}, mean of {len(points)}"
        look = {"s": 105, "color": colour(i), "edgecolors": ink, "zorder": 3}
        axes.scatter(x, y, label=_called(report, i), gid=_gid(i, tip), **look)
    for i, group in enumerate(report.groups):
        start = undefended(group, report.groups)
        start = report.groups.index(start) if start else None
        if start in middles and i in middles:
            look = {"arrowstyle": "->", "color": ink, "alpha": 0.6, "shrinkA": 6, "shrinkB": 6}
            axes.annotate("", middles[i], middles[start], arrowprops=look, zorder=2)
    axes.set(xlabel="student's accuracy on ID test images (%)", ylabel=m.about)
    axes.set(ylim=(-4, 104))
    _legend(axes, report)
    axes.grid()


def audit(report: Report, ink: str) -> Figure | None:
    """Plot the probability that the teacher is trapped (`stages.audit`) against what the student inherits of the trap,
    a point per cell. None if no finished cell has both."""
    probability = measure("audit")
    found = [m for m in trap_measures(report) if _points(report.done, probability, m)]
    if not found:
        return None
    figure = Figure(figsize=(6.8 * len(found), 3.8), layout="constrained")
    for axes, m in zip(figure.subplots(1, len(found), squeeze=False)[0], found, strict=True):
        for i, group in enumerate(report.groups):
            label = _called(report, i)
            for name, x, y in _points(group.done, probability, m):
                tip = f"{name}: {x:.2f}, {y:.1f}"
                axes.scatter(x, y, s=24, color=colour(i), alpha=0.8, label=label, gid=_gid(i, tip))
                label = None
        axes.set(xlabel=probability.about, ylabel=f"student's {m.about}", xlim=(-0.04, 1.04), ylim=(-4, 104))
        _legend(axes, report)
        axes.grid()
    return figure


def curves(report: Report, ink: str) -> Figure | None:
    """Plot ID accuracy on validation images against the round, a line per cell; None if no cell has validations."""
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    axes, lengths, named, thin = figure.subplots(), [], set(), 1.4 if len(report.runs) <= 24 else 0.8
    for i, group in enumerate(report.groups):
        for run in group.runs:
            history = _history(run)
            if not history:
                continue
            x, y = zip(*history, strict=True)
            if run.done:
                lengths.append(x[-1])
            label = None if i in named else _called(report, i)
            named.add(i)
            gid = _gid(i, f"{run.name}: {y[-1]:.1f} after round {x[-1]:g}")
            look = {"color": colour(i), "lw": thin, "alpha": 0.8, "marker": None if len(x) > 1 else "o"}
            axes.plot(x, y, "-" if run.done else ":", label=label, gid=gid, **look)
    if not named:
        return None
    if lengths and max(lengths) > 5 * min(lengths):  # methods differ widely in their numbers of rounds
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set(xlabel="round", ylabel="ID accuracy on validation images (%)")
    _legend(axes, report)
    axes.grid()
    return figure


def bars(report: Report, ink: str) -> Figure | None:
    """Plot bars for every group: the student's ID accuracy and the measures of TRAPS, with mean and standard deviation;
    a dotted tick is the teacher. None if there are no groups or more than BARS."""
    groups = [(i, group) for i, group in enumerate(report.groups) if group.done]
    panels = [measure("student ID", report.student), *trap_measures(report)]
    if not 0 < len(groups) <= BARS:
        return None
    figure = Figure(figsize=(9, 0.9 + 0.36 * len(groups)), layout="constrained")
    for axes, m in zip(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels, strict=True):
        for row, (i, group) in enumerate(groups):
            number = m.over(group)
            if not number.values:
                continue
            gid = _gid(i, f"{group.name}: {number}")
            axes.barh(row, number.mean, xerr=number.std, color=colour(i), ecolor=ink, height=0.66, capsize=2, gid=gid)
            axes.annotate(str(number), (1, row), (3, 0), xycoords=("axes fraction", "data"), va="center",
                          textcoords="offset points", fontsize=8.5, annotation_clip=False)  # fmt: skip
            theirs = m.of_teacher().over(group)
            if theirs.values:
                axes.vlines(theirs.mean, row - 0.45, row + 0.45, colors=ink, linestyles=":")
        axes.set(xlim=(0, 102), xlabel="%", title=f"{m.name} (dotted: teacher)")
    figure.get_layout_engine().set(w_pad=0.15)
    axes.set_yticks(range(len(groups)), [_called(report, i) for i, _ in groups])
    axes.set_ylim(len(groups) - 0.4, -0.6)
    return figure


def _legend(axes: Axes, report: Report) -> None:
    if len(report.groups) <= LEGEND:
        axes.legend()


def _history(run: Run) -> list[tuple[int, float]]:
    """Return (round counted from 1, ID accuracy) of all validations of a run so far."""
    rows = read_rows(run.folder / "metrics.jsonl") if run.folder else []
    pairs = [(number_at(row, "step"), number_at(row, "val/iacc")) for row in rows if row.get("stage") == "student"]
    return [(step + 1, accuracy) for step, accuracy in pairs if None not in (step, accuracy)]


def _points(runs: list[Run], x: Measure, y: Measure) -> list[tuple[str, float, float]]:
    """Return (name, value of x, value of y) per cell, without the cells that lack a value."""
    return [(run.name, *pair) for run in runs if None not in (pair := (x.value(run), y.value(run)))]


def _pair(x: float, y: float) -> str:
    return f"ID {x:.1f}, {y:.1f}"


def _called(report: Report, i: int) -> str:
    """Return the name of the i-th group in a drawing; if names are long, shortened and with its number in the table."""
    name = report.groups[i].name
    if max(len(group.name) for group in report.groups) <= LONG:
        return name
    return f"{i + 1}: {name if len(name) <= LONG else name[:LONG] + ' ...'}"


def _gid(group: int, tip: str) -> str:
    """Return the id of an element of a drawing: its group and its tooltip, which `markup.drawing` reads."""
    return f"group-{group}:{tip}"
