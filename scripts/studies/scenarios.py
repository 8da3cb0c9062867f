"""Comparisons within every scenario: the pages of the studies of ATEsc."""

from collections.abc import Callable
from statistics import fmean

from matplotlib.figure import Figure

from dfkd.report.figures import colour, marker
from dfkd.report.runs import Run
from studies.pages import Page, by, by_seed, compare, summary, table
from studies.statistics import holm, p_text, t_interval

TRAPS = "ASR or OLAcc"


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
        compared_here = compare(by(runs, label), measures, control, ["student ID", trap(name)])
        parts.append(f"**{name}**\n\n{compared_here}")
    parts.append(pooled(cells, label, control))
    return Page("\n\n".join(filter(None, parts)), picture(cells, label))


def pooled(cells: list[Run], label: Callable[[Run], str], control: str) -> str:
    """Return a table of the differences to the control over all scenarios, whose pairs are of one scenario and seed; ''
    for a single scenario."""
    differences: dict[tuple[str, str], list[float]] = {}
    scenarios = by(cells, scenario)
    if len(scenarios) < 2:
        return ""
    for name, runs in scenarios.items():
        groups = by(runs, label)
        for group in groups.keys() - {control}:
            for measure, head in (("student ID", "student ID"), (TRAPS, trap(name))):
                ours, theirs = by_seed(groups[group], head), by_seed(groups[control], head)
                found = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
                differences.setdefault((group, measure), []).extend(found)
    tests = {key: t_interval(found) for key, found in differences.items()}
    adjusted = dict(zip(tests, holm([test.p for test in tests.values()]), strict=True))
    rows = []
    for group in dict.fromkeys(label(run) for run in cells if label(run) != control):
        keys = [(group, measure) for measure in ("student ID", TRAPS)]
        words = [word for key in keys for word in (str(tests[key]), p_text(adjusted[key]))]
        rows.append([group, tests[keys[0]].n, *words])
    head = ["", "pairs", f"student ID - {control}", "p (Holm)", f"{TRAPS} - {control}", "p (Holm)"]
    return f"**all scenarios**: pairs of one scenario and seed\n\n{table(head, rows)}"


def picture(cells: list[Run], label: Callable[[Run], str]) -> Figure:
    """Draw student ID accuracy against the trap, a panel a scenario: the means, with a line to every cell."""
    panels, order, shown = by(cells, scenario), list(dict.fromkeys(map(label, cells))), {}
    figure = Figure(figsize=(4 * len(panels) + 1.6, 3.8))
    for axes, (name, runs) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for group, members in by(runs, label).items():
            i = order.index(group)  # one colour in all panels, also where a panel lacks a group
            x, y = (by_seed(members, head) for head in (trap(name), "student ID"))
            middle = fmean(x.values()), fmean(y.values())
            for seed in x:
                axes.plot([middle[0], x[seed]], [middle[1], y[seed]], "-", color=colour(i), linewidth=0.7)
            axes.plot(*middle, marker(i), color=colour(i), markersize=7, linestyle="", label=group)
        teacher = [summary(runs, head).mean for head in (f"teacher {trap(name)}", "teacher ID")]
        axes.plot(*teacher, "k*", label="teacher")
        axes.set(xlabel=f"{trap(name)}, %", ylabel="student ID, %", title=name, xlim=(-5, 105), ylim=(0, 103))
        shown |= {name: line for line, name in zip(*axes.get_legend_handles_labels(), strict=True)}
    names = [name for name in (*order, "teacher") if name in shown]
    figure.legend([shown[name] for name in names], names, loc="outside right center", fontsize=8)
    return figure
