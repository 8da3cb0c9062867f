"""Study 11: whether synthetic images, and students of them, betray which images their teacher was trained on."""

import copy
import functools
from statistics import fmean

from matplotlib.figure import Figure
from omegaconf import OmegaConf

from dfkd.config.cell import Cell
from dfkd.domains import to_float
from dfkd.measures.membership import member_scores
from dfkd.measures.roc import auroc
from dfkd.models import load_classifier
from dfkd.report.figures import colour
from dfkd.report.runs import Run
from dfkd.report.tables import Number
from dfkd.stages.prepare import prepare
from studies.kept import derived
from studies.pages import Page, by, by_seed, summary, table
from studies.statistics import holm, p_text, paired

PIXELS, MEMBERS = "nearer to train", "membership AUROC"
MEASURES = (
    *("nearer to train, features", "pool AUROC", "pool AUROC, features", MEMBERS),
    *("teacher membership AUROC", "student ID", "teacher ID"),
)
SAME = "Membership AUROC of the students for the same images, which are those of the memorised teacher:"


def teacher(run: Run) -> str:
    """Return the kind of a cell's teacher: one of few training images has memorised them."""
    return "memorised" if run.config["ntl_scenario"]["id"]["train_images"] else "ordinary"


def synthesizer(run: Run) -> str:
    return run.config["synthesizer"]["name"]


def above_chance(runs: list[Run]) -> list[float]:
    """Return for every seed how many points more of a pool than by chance lie nearer to training images, in pixels."""
    found, chance = (by_seed(runs, head) for head in (PIXELS, "leakage.pixels.expected"))
    return [100 * (found[seed] - chance[seed]) for seed in found]


def by_chance(runs: list[Run]) -> str:
    """Return where 95 % of the shares lie if training and test images are exchanged at random, the mean over seeds."""
    ends = zip(*(run.result["leakage"]["pixels"]["interval"] for run in runs), strict=True)
    return " to ".join(f"{fmean(end):.2f}" for end in ends)


def on_few(run: Run, count: int) -> float:
    """Return the AUROC of the attack on a student's loss for the training images of a teacher of only `count` images,
    whatever images the student's own teacher had: of an ordinary teacher, it tells how easy these images are."""
    config = copy.deepcopy(run.config)
    config["ntl_scenario"]["id"]["train_images"] = count
    domain, student = prepare(Cell(OmegaConf.create(config))).scenario.id, load_classifier(run.folder / "student.json")
    members, others = (
        member_scores(student.predict(to_float(part.pixels())), part.y, "loss") for part in (domain.train, domain.test)
    )
    return round(auroc(members, others), 4)


def same_images(groups: dict[tuple[str, str], list[Run]]) -> str:
    """Return the membership attack on students of the memorised teacher beside that on students of the ordinary one,
    both for the former's training images; '' without such pairs."""
    found = {}
    for (kind, name), runs in groups.items():
        if kind == "memorised" and ("ordinary", name) in groups:
            few = functools.partial(on_few, count=runs[0].config["ntl_scenario"]["id"]["train_images"])
            control = {run.seed: derived(run, "on_few", few) for run in groups["ordinary", name]}
            found[name] = by_seed(runs, MEMBERS), control
    if not found:
        return ""
    tests = {
        name: paired(*({seed: 100 * value for seed, value in auc.items()} for auc in both))
        for name, both in found.items()
    }
    adjusted = holm([test.p for test in tests.values()])
    rows = [
        [name, test.n, *(Number(tuple(auc.values()), ".2f") for auc in found[name]), test, p_text(p)]
        for (name, test), p in zip(tests.items(), adjusted, strict=True)
    ]
    head = ["images of", "pairs", "student of the memorised teacher", "of the ordinary one"]
    return f"{SAME}\n\n{table([*head, 'points (95 %)', 'p (Holm)'], rows)}"


def page(cells: list[Run]) -> Page:
    """Return what the pool and the student betray, for every teacher and synthesizer, beside what chance would give."""
    adjusted = {}
    for runs in by(cells, lambda run: run.seed).values():  # Holm's adjustment is over the cells of a seed
        exact = [run.result["leakage"]["pixels"]["p"] for run in runs]
        adjusted |= dict(zip((run.name for run in runs), map(p_text, holm(exact)), strict=True))
    groups = by(cells, lambda run: (teacher(run), synthesizer(run)))
    rows = []
    for group, runs in groups.items():
        p = ", ".join(adjusted[run.name] for run in runs)
        measured = (summary(runs, head) for head in MEASURES)
        rows.append([*group, len(runs), summary(runs, PIXELS), by_chance(runs), p, *measured])
    head = ["teacher", "synthesizer", "n", PIXELS, "by chance (95 %)", "p (Holm) by seed", *MEASURES]
    parts = [table(head, rows), same_images(groups)]
    return Page("\n\n".join(filter(None, parts)), picture(groups))


def picture(groups: dict[tuple[str, str], list[Run]]) -> Figure:
    """Draw the points above chance of every cell, by synthesizer and teacher."""
    figure = Figure(figsize=(8, 3.8))
    axes = figure.subplots()
    kinds = list(dict.fromkeys(kind for kind, _ in groups))
    names = list(dict.fromkeys(name for _, name in groups))
    for (kind, name), runs in groups.items():
        y, x = above_chance(runs), names.index(name) + 0.15 * kinds.index(kind)
        axes.plot([x] * len(y), y, "o", color=colour(kinds.index(kind)), markersize=4)
    for i, kind in enumerate(kinds):
        axes.plot([], [], "o", color=colour(i), label=f"{kind} teacher")
    axes.axhline(0, color="black", linestyle=":")
    axes.set_xticks(range(len(names)), names, fontsize=8, rotation=30, ha="right")
    axes.set_ylabel("nearer to a training image, points above chance")
    axes.legend(fontsize=8)
    return figure
