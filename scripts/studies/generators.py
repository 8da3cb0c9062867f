"""Study 12: ATEsc with other generators and synthesizers."""

from statistics import fmean

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
            summary(pair["atesc"], "fragile"),
            *(summary(pair["none"], head) for head in ("teacher ID", "teacher ASR")),
        ]
        for name, pair in groups.items()
    ]
    head = ["synthesizer", "n", *(f"{head}, none -> atesc" for head in MEASURES)]
    head += [word for head in MEASURES for word in (f"change of {head}", "p (Holm)")]
    return Page(table([*head, "fragile", "teacher ID", "teacher ASR"], rows), picture(groups))


def picture(groups: dict[str, dict]) -> Figure:
    """Draw a thin line for every synthesizer and seed, from the undefended to the defended student, and their means."""
    figure = Figure(figsize=(7.6, 4))
    axes = figure.subplots()
    for i, (name, pair) in enumerate(groups.items()):
        asr, accuracy = ([by_seed(pair[d], head) for d in ("none", "atesc")] for head in ("ASR", "student ID"))
        for seed in asr[0].keys() & asr[1].keys():
            axes.plot([of[seed] for of in asr], [of[seed] for of in accuracy], color=colour(i), linewidth=0.6)
        for number, style in ((0, "none"), (1, "full")):
            mean = [fmean(of[number].values()) for of in (asr, accuracy)]
            axes.plot(*mean, "o", color=colour(i), fillstyle=style, label=name if number else None)
    axes.set(xlabel="ASR, %", ylabel="student ID, % (open: undefended, filled: ATEsc)", xlim=(-5, 105), ylim=(0, 103))
    figure.legend(loc="outside right center", fontsize=8)
    return figure
