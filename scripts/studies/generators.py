"""Study 12: ATEsc with other generators and synthesizers."""

from matplotlib.figure import Figure

from dfkd.report.figures import colour
from dfkd.report.runs import Run
from studies.pages import Page, by, by_seed, summary, table
from studies.statistics import holm, p_text, paired

MEASURES = ("student ID", "ASR")


def images_by(run: Run) -> str:
    """Return the synthesizer of a cell, and its generator if it has one."""
    synthesizer = run.config["synthesizer"]
    generator = synthesizer.get("generator")
    return f"{synthesizer['name']}, {generator['name']}" if generator else f"{synthesizer['name']}, no generator"


def page(cells: list[Run]) -> Page:
    """Return undefended and defended students of every synthesizer, and their differences."""
    groups = {name: by(runs, lambda run: run.config["defense"]["name"]) for name, runs in by(cells, images_by).items()}
    groups = {name: pair for name, pair in groups.items() if {"none", "atesc"} <= pair.keys()}
    tests = {
        (name, head): paired(by_seed(pair["atesc"], head), by_seed(pair["none"], head))
        for name, pair in groups.items()
        for head in MEASURES
    }
    adjusted = dict(zip(tests, holm([test.p for test in tests.values()]), strict=True))
    rows = [
        [
            name,
            len(pair["atesc"]),
            *(f"{summary(pair['none'], head)} -> {summary(pair['atesc'], head)}" for head in MEASURES),
            *(word for head in MEASURES for word in (tests[name, head], p_text(adjusted[name, head]))),
            *(summary(pair["none"], head) for head in ("teacher ID", "teacher ASR")),
        ]
        for name, pair in groups.items()
    ]
    head = ["synthesizer", "n", *(f"{head}, none -> atesc" for head in MEASURES)]
    head += [word for head in MEASURES for word in (f"change of {head}", "p (Holm)")]
    return Page(table([*head, "teacher ID", "teacher ASR"], rows), picture(groups))


def picture(groups: dict[str, dict]) -> Figure:
    """Draw an arrow for every synthesizer, from the undefended to the defended student."""
    figure = Figure(figsize=(6, 4))
    axes = figure.subplots()
    for i, (name, pair) in enumerate(groups.items()):
        (x0, x1), (y0, y1) = (
            [summary(pair[d], head).mean for d in ("none", "atesc")] for head in ("ASR", "student ID")
        )
        axes.plot([x0, x1], [y0, y1], color=colour(i), linewidth=0.8)
        axes.plot(x0, y0, "o", color=colour(i), fillstyle="none")
        axes.plot(x1, y1, "o", color=colour(i), label=name)
    axes.set(xlabel="ASR, %", ylabel="student ID, % (open: undefended, filled: ATEsc)", xlim=(-5, 105), ylim=(0, 103))
    axes.legend(fontsize=7)
    return figure
