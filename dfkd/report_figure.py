"""The report's figure: the trap (ID accuracy against attack success) or accuracies as bars, and what was split."""

import statistics
from pathlib import Path

from matplotlib.figure import Figure

from dfkd.figures import COLOURS
from dfkd.report import Row

PALETTE = ("#D55E00", "#009E73", "#0072B2", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
TRAPS = {"ASR": "attack success rate (%)", "OLAcc": "answers the taught OOD label (%)"}


def draw(rows: list[Row], path: Path) -> None:
    """One picture of all rows."""
    trap = next((measure for measure in TRAPS if any(row.values(measure) for row in rows)), None)
    figure = Figure(figsize=(6.4, 4.6), layout="constrained")
    axes = figure.subplots()
    if trap:
        _trap(axes, rows, trap)
    else:
        _bars(axes, rows)
    figure.savefig(path, dpi=130)


def _trap(axes, rows: list[Row], trap: str) -> None:
    """ID accuracy against the OOD behaviour, one small point a cell, a large one a row, the teachers as crosses."""
    teachers = {tuple(point) for row in rows for point in row.points("teacher ID", f"teacher {trap}")}
    axes.scatter(*zip(*teachers, strict=True), marker="x", color=COLOURS["teacher"], label="teacher", zorder=4)
    means = {}
    for row, colour in zip(rows, PALETTE * len(rows), strict=False):
        points = row.points("student ID", trap)
        if not points:
            continue
        x, y = zip(*points, strict=True)
        axes.scatter(x, y, s=14, color=colour, alpha=0.6)
        means[id(row)] = statistics.mean(x), statistics.mean(y)
        axes.scatter(*means[id(row)], s=110, color=colour, edgecolors="black", label=_label(row), zorder=3)
    for row in rows:
        start = _undefended(row, rows)
        if start is not None and id(start) in means and id(row) in means:
            axes.annotate(
                "", means[id(row)], means[id(start)], arrowprops={"arrowstyle": "->", "color": "grey"}, zorder=2
            )
    axes.set(xlabel="student's accuracy on ID test images (%)", ylabel=f"{TRAPS[trap]}, lower is better")
    axes.set(ylim=(-4, 104), title="the OOD trap: what a data-free student inherits")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)


def _undefended(row: Row, rows: list[Row]) -> Row | None:
    """The row that differs from `row` in having no defense."""
    if row.label.get("defense", "none") == "none":
        return None
    rest = {key: value for key, value in row.label.items() if key != "defense"}
    return next((other for other in rows if other.label == rest | {"defense": "none"}), None)


def _bars(axes, rows: list[Row]) -> None:
    """Student accuracy of every row with its standard deviation, the teacher as a dotted line."""
    for i, (row, colour) in enumerate(zip(rows, PALETTE * len(rows), strict=False)):
        x = row.values("student ID")
        axes.bar(i, statistics.mean(x), yerr=statistics.stdev(x) if len(x) > 1 else None, color=colour, capsize=4)
        axes.hlines(statistics.mean(row.values("teacher ID")), i - 0.45, i + 0.45, colors="black", linestyles=":")
    axes.set_xticks(range(len(rows)), [_label(row) for row in rows], fontsize=8, rotation=20, ha="right")
    axes.set(ylabel="accuracy on ID test images (%)", ylim=(0, 103), title="students (dotted: their teachers)")


def _label(row: Row) -> str:
    return ", ".join(row.label.values())
