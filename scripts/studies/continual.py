"""Study 13: chains of learners that never see the old data again. Its cells are those of scripts/continual.py."""

from continual import TASKS, summary

from dfkd.report.runs import Run
from studies.pages import Page, by, compare, intervals

LOWER, AVERAGE, FORGETTING = "nothing", "accuracy over all tasks", "mean forgetting"
CONTRAST = 10  # weight of the contrast in CAKE's preset for the digits
METRICS = {  # of a whole chain, as conf/metrics describes those of a model
    "average": {"label": AVERAGE, "form": "percent", "of_teacher": False},
    "mean_forgetting": {"label": FORGETTING, "form": "percent", "of_teacher": False},
    **{
        f"forgetting_{k}": {"label": f"forgetting of task {k}", "form": "percent", "of_teacher": False}
        for k in range(TASKS - 1)
    },
}


def method(run: Run) -> str:
    """Return the method of a cell: a synthesizer, or one of the bounds `nothing` and `joint`."""
    config = run.config
    if config["ntl_scenario"]["id"]["joint"]:
        return "joint"
    synthesizer = config["synthesizer"]
    makes_images = config["until"] != "judgement" or config["teacher"]["memory_path"]  # for its successor, or uses them
    if not makes_images:
        return LOWER
    weight = synthesizer.get("contrast_weight", CONTRAST)
    return synthesizer["name"] + (f", contrast weight {weight:g}" if weight != CONTRAST else "")


def chains(cells: list[Run]) -> list[Run]:
    """Return every complete chain as one run, whose student's metrics are `METRICS`."""
    found = []
    for (name, seed), runs in by(cells, lambda run: (method(run), run.seed)).items():
        tasks = {run.config["ntl_scenario"]["id"]["task"]: run.result["teacher"] for run in runs}
        if len(tasks) < TASKS:
            continue
        made = summary([[tasks[t][f"task_{k}"] for k in range(t + 1)] for t in range(TASKS)])
        made |= {f"forgetting_{k}": value for k, value in enumerate(made.pop("forgetting"))}
        found.append(Run(name, None, "done", {"seed": seed, "metrics": METRICS}, {"student": made}))
    return found


def page(cells: list[Run]) -> Page:
    """Return every method against learning without any memory, and the accuracies over all tasks."""
    groups = by(chains(cells), lambda run: run.name)
    labels = [metric["label"] for metric in METRICS.values()]
    return Page(compare(groups, labels, LOWER, [AVERAGE, FORGETTING]), intervals(groups, AVERAGE, f"{AVERAGE}, %"))
