"""Study 2: how near the student is to its teacher, by the number of images shown to the teacher."""

from matplotlib.figure import Figure

from dfkd.report.figures import colour
from dfkd.report.runs import Run
from studies.pages import Page, by, summary, table


def method(run: Run) -> str:
    """Return the name of a cell's method; CAKE with several snapshots of a set is `cake_fast`."""
    synthesizer = run.config["synthesizer"]
    return "cake_fast" if synthesizer.get("snapshots", 1) > 1 else synthesizer["name"]


def budget(run: Run) -> object:
    return run.config["student"]["epochs"] if method(run) == "real" else run.config["synthesizer"]["rounds"]


def page(cells: list[Run]) -> Page:
    """Return a row for every method and budget, and the curves."""
    curves = {name: by(runs, budget) for name, runs in by(cells, method).items()}
    rows = [
        [name, len(runs), *(summary(runs, head) for head in ("teacher evals", "student ID", "agreement", "teacher ID"))]
        for name, budgets in curves.items()
        for runs in budgets.values()
    ]
    head = ["method", "n", "images shown to the teacher", "student ID", "agreement", "teacher ID"]
    return Page(table(head, rows), picture(curves))


def picture(curves: dict[str, dict]) -> Figure:
    """Draw student ID accuracy against the images shown to the teacher."""
    figure = Figure(figsize=(7, 4))
    axes = figure.subplots()
    for i, (name, budgets) in enumerate(curves.items()):
        x, y = ([summary(runs, head) for runs in budgets.values()] for head in ("teacher evals", "student ID"))
        axes.errorbar([v.mean for v in x], [v.mean for v in y], [v.std or 0 for v in y],
                      label=name, color=colour(i), marker="o", markersize=4, capsize=2)  # fmt: skip
    teacher = summary([run for budgets in curves.values() for runs in budgets.values() for run in runs], "teacher ID")
    axes.axhline(teacher.mean, color="black", linestyle=":", label="teacher")
    axes.set(xscale="log", xlabel="images shown to the teacher", ylabel="student ID accuracy, % (mean, std)")
    axes.legend(fontsize=8)
    return figure
