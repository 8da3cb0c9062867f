"""Comparisons within every scenario: the pages of the studies of ATEsc."""

from collections.abc import Callable

from matplotlib.figure import Figure

from dfkd.report.figures import colour, marker
from dfkd.report.runs import Run
from studies.pages import Page, by, by_seed, compare, summary
from studies.statistics import t_interval


def scenario(run: Run) -> str:
    return run.config["ntl_scenario"]["name"]


def trap(name: str) -> str:
    """Return the measure of the trap in a scenario, which a defense should lower."""
    return "ASR" if name == "backdoor" else "OLAcc"


def compared(cells: list[Run], label: Callable[[Run], str], control: str, more: tuple[str, ...] = ()) -> Page:
    """Return a table and a panel for every scenario: the groups, and their differences to the control.

    Args:
        label: names the group of a cell.
        control: name of the group with which the others are compared.
        more: further measures to show.
    """
    parts = []
    for name, runs in by(cells, scenario).items():
        measures = ["student ID", trap(name), *(["OOD acc"] if name != "open_set" else []), *more]
        measures += ["teacher ID", f"teacher {trap(name)}"]
        table = compare(by(runs, label), measures, control, ["student ID", trap(name)])
        parts.append(f"**{name}**\n\n{table}")
    return Page("\n\n".join(parts), picture(cells, label))


def picture(cells: list[Run], label: Callable[[Run], str]) -> Figure:
    """Draw student ID accuracy against the trap, a panel a scenario; bars are 95 % t-intervals."""
    panels = by(cells, scenario)
    figure = Figure(figsize=(4.2 * len(panels), 3.8))
    for axes, (name, runs) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for i, (group, members) in enumerate(by(runs, label).items()):
            x, y = (t_interval(list(by_seed(members, head).values())) for head in (trap(name), "student ID"))
            spread = [[[v.mean - v.low], [v.high - v.mean]] if v.n > 1 else None for v in (x, y)]
            look = {"color": colour(i), "marker": marker(i), "label": group, "linewidth": 0.7}
            axes.errorbar(x.mean, y.mean, spread[1], spread[0], **look)
        teacher = [summary(runs, head).mean for head in (f"teacher {trap(name)}", "teacher ID")]
        axes.plot(*teacher, "k*", label="teacher")
        axes.set(xlabel=f"{trap(name)}, %", ylabel="student ID, %", title=name, xlim=(-5, 105), ylim=(0, 103))
        axes.legend(fontsize=7)
    return figure
