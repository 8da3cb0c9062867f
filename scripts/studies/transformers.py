"""Study 4: data-free distillation of and into vision transformers."""

from matplotlib.figure import Figure

from dfkd.report.figures import colour
from dfkd.report.runs import Run
from studies.pages import Page, by, compare, summary

FLOOR = "noise_images"
NAMES = {"timm": "ViT", "cnn_bn": "CNN"}


def pair(run: Run) -> str:
    """Return the kinds of teacher and student of a cell."""
    return " -> ".join(NAMES[run.config[who]["network"]["name"]] for who in ("teacher", "student"))


def method(run: Run) -> str:
    """Return the synthesizer of a cell with its prior terms."""
    terms = [name for name, term in (run.config["prior"] or {}).items() if term["weight"] > 0]
    return run.config["synthesizer"]["name"] + (f" ({', '.join(terms)})" if terms else "")


def page(cells: list[Run]) -> Page:
    """Return a table for every pair of networks: all methods, against random images where these were made."""
    groups = {name: by(runs, method) for name, runs in by(cells, pair).items()}
    measures = ["student ID", "agreement", "teacher ID", "teacher evals"]
    parts = []
    for name, methods in groups.items():
        control = FLOOR if FLOOR in methods else next(iter(methods))
        parts.append(f"**{name}**\n\n{compare(methods, measures, control, ['student ID'])}")
    return Page("\n\n".join(parts), picture(groups))


def picture(groups: dict[str, dict[str, list[Run]]]) -> Figure:
    """Draw the student ID accuracy of every cell, by method and pair of networks."""
    figure = Figure(figsize=(8, 3.8))
    axes = figure.subplots()
    names = list(dict.fromkeys(name for methods in groups.values() for name in methods))
    for i, (kind, methods) in enumerate(groups.items()):
        for name, runs in methods.items():
            x, y = names.index(name) + 0.12 * i, summary(runs, "student ID").values
            axes.plot([x] * len(y), y, "o", color=colour(i), markersize=4)
        axes.plot([], [], "o", color=colour(i), label=kind)
    axes.set_xticks(range(len(names)), names, fontsize=8, rotation=20, ha="right")
    axes.set(ylabel="student ID accuracy, %", ylim=(0, 103))
    axes.legend(fontsize=8)
    return figure
