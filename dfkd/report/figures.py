"""The figures of a report: the trap, learning curves, bars. matplotlib is imported here and nowhere else."""

import statistics
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO, StringIO

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from dfkd.config.keys import measured
from dfkd.report.content import Report
from dfkd.report.groups import undefended
from dfkd.report.runs import Run
from dfkd.report.tables import Measure, measure
from dfkd.tracker import read_rows

# Told apart by colour-blind readers (Okabe and Ito), on white and on black.
PALETTE = ("#D55E00", "#009E73", "#2B83C6", "#CC79A7", "#E69F00", "#56B4E9", "#8C6BB1", "#7A7A7A")
TRAPS = ("ASR", "OLAcc")  # what tells a student in the trap
INK, FAINT = "#010203", "#040506"  # stand in a drawing for the page's own colours
LEGEND = 12  # more groups than this are told apart by pointing at them
LONG = 52  # characters of a name that leave room for the drawing
BARS = 40  # more groups than this are not drawn as bars


def colour(i: int) -> str:
    """Of the i-th group, in every figure and beside its name."""
    return PALETTE[i % len(PALETTE)]


@contextmanager
def style(ink: str, salt: str) -> Iterator[None]:
    """Text as text, names taken literally, the same drawing the same bytes."""
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
        warnings.filterwarnings("ignore", "Glyph .* missing")  # of a name; a page has its own fonts
        yield


def as_svg(figure: Figure) -> str:
    """The drawing without a background, in the stand-in colours."""
    out = StringIO()
    figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return out.getvalue()


def as_png(report: Report) -> bytes | None:
    """The report in one picture: the trap where there is one, else bars; None where nothing can be drawn."""
    with style("black", "png"):
        out = BytesIO()
        figure = trap(report, "black") or bars(report, "black")
        if figure is not None:
            figure.savefig(out, format="png", dpi=130)
        return out.getvalue() or None


def trap_measures(report: Report) -> list[Measure]:
    """What tells a student in the trap from one that escaped, as far as it was measured."""
    every = [measure(name, report.student) for name in TRAPS]
    return [m for m in every if any(m.over(group).values for group in report.groups)]


def trap(report: Report, ink: str) -> Figure | None:
    """ID accuracy against the OOD behaviour: a small point a cell, a large one a group, crosses for the teachers, an
    arrow from each undefended group to its defended ones. None where nothing of it was measured."""
    found = trap_measures(report)
    if not found:
        return None
    figure = Figure(figsize=(6.8 * len(found), 4.6), layout="constrained")
    for axes, m in zip(figure.subplots(1, len(found), squeeze=False)[0], found, strict=True):
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


def curves(report: Report, ink: str) -> Figure | None:
    """ID accuracy on validation images against the round, a line a cell; None where no cell kept any."""
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
    if lengths and max(lengths) > 5 * min(lengths):  # rounds of methods of several kinds
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set(xlabel="round", ylabel="ID accuracy on validation images (%)")
    _legend(axes, report)
    axes.grid()
    return figure


def bars(report: Report, ink: str) -> Figure | None:
    """Student accuracy of every group, and how far it is in the trap: mean and standard deviation, the teacher as a
    tick. None where nothing can be drawn, or nothing would be seen."""
    groups = [(i, group) for i, group in enumerate(report.groups) if group.done]
    panels = [measure("student ID", report.student), *trap_measures(report)]
    if not 0 < len(groups) <= BARS:
        return None
    figure = Figure(figsize=(9, 0.9 + 0.36 * len(groups)), layout="constrained")
    for axes, m in zip(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels, strict=True):
        for place, (i, group) in enumerate(groups):
            number = m.over(group)
            if not number.values:
                continue
            gid = _gid(i, f"{group.name}: {number}")
            axes.barh(place, number.mean, xerr=number.std, color=colour(i), ecolor=ink, height=0.66, capsize=2, gid=gid)
            axes.annotate(str(number), (1, place), (3, 0), xycoords=("axes fraction", "data"), va="center",
                          textcoords="offset points", fontsize=8.5, annotation_clip=False)  # fmt: skip
            theirs = m.of_teacher().over(group)
            if theirs.values:
                axes.vlines(theirs.mean, place - 0.45, place + 0.45, colors=ink, linestyles=":")
        axes.set(xlim=(0, 102), xlabel="%", title=f"{m.name} (dotted: teacher)")
    figure.get_layout_engine().set(w_pad=0.15)
    axes.set_yticks(range(len(groups)), [_called(report, i) for i, _ in groups])
    axes.set_ylim(len(groups) - 0.4, -0.6)
    return figure


def _legend(axes: Axes, report: Report) -> None:
    if len(report.groups) <= LEGEND:
        axes.legend()


def _history(run: Run) -> list[tuple[int, float]]:
    """(round, counted from 1, and ID accuracy) of a run's validations so far."""
    rows = read_rows(run.folder / "metrics.jsonl") if run.folder else []
    pairs = [(measured(row, "step"), measured(row, "val/iacc")) for row in rows if row.get("stage") == "student"]
    return [(step + 1, accuracy) for step, accuracy in pairs if None not in (step, accuracy)]


def _points(runs: list[Run], x: Measure, y: Measure) -> list[tuple[str, float, float]]:
    """(name, two numbers) a cell; cells that lack one are left out."""
    return [(run.name, *pair) for run in runs if None not in (pair := (x.value(run), y.value(run)))]


def _pair(x: float, y: float) -> str:
    return f"ID {x:.1f}, {y:.1f}"


def _called(report: Report, i: int) -> str:
    """What the i-th group is called in a drawing; where names are long, by the number it has in the table."""
    name = report.groups[i].name
    if max(len(group.name) for group in report.groups) <= LONG:
        return name
    return f"{i + 1}: {name if len(name) <= LONG else name[:LONG] + ' ...'}"


def _gid(group: int, tip: str) -> str:
    """Names a part of a drawing: its group, and what to say when one points at it."""
    return f"group-{group}:{tip}"
