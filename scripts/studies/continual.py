"""Study 13: chains of learners that never see the old data again. Its cells are those of scripts/continual.py."""

from pathlib import Path
from statistics import fmean

from continual import IMAGES, TASKS, summary
from safetensors.torch import load_file

from dfkd.domains import to_float
from dfkd.models import load_classifier
from dfkd.report.runs import Run
from dfkd.teachers.incremental import MEMORY
from studies.judge import artifact
from studies.kept import derived
from studies.pages import Page, by, compare, intervals

LOWER, UPPER = "nothing", "joint"
AVERAGE, FORGETTING = "accuracy over all tasks", "mean forgetting"
CONTRAST = 10  # weight of the contrast in CAKE's preset for the digits
METRICS = {  # of a whole chain, as conf/metrics describes those of a model
    "average": {"label": AVERAGE, "form": "percent", "of_teacher": False},
    "mean_forgetting": {"label": FORGETTING, "form": "percent", "of_teacher": False},
    "remembered": {"label": "agreement on the images", "form": "percent", "of_teacher": False},
    **{
        f"forgetting_{k}": {"label": f"forgetting of task {k}", "form": "percent", "of_teacher": False}
        for k in range(TASKS - 1)
    },
}


def method(run: Run) -> str:
    """Return the method of a cell: a synthesizer, or one of the bounds `nothing` and `joint`."""
    config = run.config
    if config["ntl_scenario"]["id"]["joint"]:
        return UPPER
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
        agreements = [derived(run, "remembered", remembered) for run in runs if run.config["teacher"]["memory_path"]]
        made |= {"remembered": fmean(agreements)} if agreements else {}
        found.append(Run(name, None, "done", {"seed": seed, "metrics": METRICS}, {"student": made}))
    return found


def remembered(run: Run) -> float:
    """Return the share of its synthetic images, in percent, on which a learner agrees with the last one."""
    config = run.config["teacher"]
    learner = load_classifier(artifact(run, "teacher") / "teacher.json")
    last = load_classifier(Path(config["last_path"]).with_name("teacher.json"))
    file = load_file(config["memory_path"])
    images = to_float(next(file[name] for name in MEMORY if name in file)[:IMAGES])
    same = learner.predict(images).argmax(1) == last.predict(images).argmax(1)
    return round(100 * same.float().mean().item(), 2)


def page(cells: list[Run]) -> Page:
    """Return every method against learning without any memory, and the accuracies over all tasks."""
    found = by(chains(cells), lambda run: run.name)
    groups = {name: found[name] for name in (LOWER, *sorted(found.keys() - {LOWER, UPPER}), UPPER) if name in found}
    labels = [metric["label"] for metric in METRICS.values()]
    return Page(compare(groups, labels, LOWER, [AVERAGE, FORGETTING]), intervals(groups, AVERAGE, f"{AVERAGE}, %"))
