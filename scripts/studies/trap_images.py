"""Study 7: on which side of a judge the images of every synthesizer fall, for every kind of teacher."""

import functools
from collections.abc import Callable, Container

from matplotlib.figure import Figure

from dfkd.report.figures import colour
from dfkd.report.runs import Run
from dfkd.report.tables import Number
from dfkd.tracker import read_rows
from studies.judge import Bench, bench, samples
from studies.kept import derived
from studies.pages import Page, by, by_seed, summary, table
from studies.statistics import holm, p_text, paired

CONTROL = "supervised"  # the teacher without a trap


def teacher(run: Run) -> str:
    """Return the kind of a cell's teacher; an NTL teacher with a weight of 1 on its OOD error has a firmer trap."""
    config = run.config["teacher"]
    return f"{config['name']}, firm" if config["name"] == "ntl" and config["alpha"] >= 1 else config["name"]


def synthesizer(run: Run) -> str:
    return run.config["synthesizer"]["name"]


def ood_share(runs: list[Run]) -> dict[object, float]:
    """Return {seed: share of the images that the judge calls OOD, in percent}."""
    return {seed: 100 * (1 - share) for seed, share in by_seed(runs, "fragile_share").items()}


def judges(cells: list[Run]) -> str:
    """Return how well the judge of every teacher tells real test images of the two domains apart."""
    rows = []
    for name, runs in by(cells, teacher).items():
        one_a_seed = [group[0] for group in by(runs, lambda run: run.seed).values()]
        found = Number(tuple(derived(run, "judge_auroc", judge_auroc) for run in one_a_seed), ".3f")
        accuracies = (summary(one_a_seed, head) for head in ("teacher ID", "teacher.oacc"))
        rows.append([name, len(one_a_seed), *accuracies, found])
    return table(["teacher", "n", "teacher ID", "teacher on OOD", "judge's AUROC on real test images"], rows)


def judge_auroc(run: Run) -> float:
    return bench(run).auroc()


def neutral_share(runs: list[Run], judge_of: Callable[[object], Bench], seeds: Container) -> Number:
    """Return the share of the newest images of cells that the judge of the ordinary teacher calls OOD, in percent: one
    judge for all teachers of a seed.

    Args:
        judge_of: returns what a cell of the ordinary teacher of a seed was made of.
        seeds: that have an ordinary teacher.
    """

    def share(run: Run) -> float:
        odds = judge_of(run.seed).log_odds(samples(run)["all"])
        return 100 * (odds < 0).float().mean().item()

    return Number(tuple(derived(run, "judged_by_ordinary", share) for run in runs if run.seed in seeds))


def page(cells: list[Run]) -> Page:
    """Return the judges, the share of OOD images for every teacher and synthesizer, and the shares over the rounds."""
    groups = {name: by(runs, teacher) for name, runs in by(cells, synthesizer).items()}
    tests = {
        (name, kind): paired(ood_share(runs), ood_share(kinds[CONTROL]))
        for name, kinds in groups.items()
        for kind, runs in kinds.items()
        if kind != CONTROL and CONTROL in kinds
    }
    adjusted = dict(zip(tests, holm([test.p for test in tests.values()]), strict=True))
    controls = by((run for run in cells if teacher(run) == CONTROL), lambda run: run.seed)

    @functools.cache
    def ordinary(seed: object) -> Bench:
        return bench(controls[seed][0])

    rows = []
    for name, kinds in groups.items():
        for kind, runs in kinds.items():
            test, p = tests.get((name, kind), ""), adjusted.get((name, kind))
            share = Number(tuple(ood_share(runs).values()))
            by_one_judge = neutral_share(runs, ordinary, controls)
            measured = (summary(runs, head) for head in ("student ID", "OLAcc"))
            rows.append([name, kind, len(runs), share, test, "" if p is None else p_text(p), by_one_judge, *measured])
    head = ["synthesizer", "teacher", "n", "judged OOD, %", f"- {CONTROL}", "p (Holm)", f"by the {CONTROL} judge, %"]
    text = f"{judges(cells)}\n\n{table([*head, 'student ID', 'OLAcc'], rows)}"
    return Page(text, picture(groups))


def picture(groups: dict[str, dict]) -> Figure:
    """Draw the share that is judged OOD over the rounds of the methods that make images while the student learns; an
    empty panel if there is none."""
    shown = {name: kinds for name, kinds in groups.items() if rounds_of(next(iter(kinds.values()))[0])}
    figure = Figure(figsize=(3.6 * max(1, len(shown)) + 1.2, 3.2))
    panels, lines = figure.subplots(1, max(1, len(shown)), squeeze=False, sharey=True)[0], {}
    for axes, (name, kinds) in zip(panels, shown.items(), strict=False):
        for i, (kind, runs) in enumerate(kinds.items()):
            for run in runs:
                (lines[kind],) = axes.plot(*zip(*rounds_of(run), strict=True), color=colour(i), linewidth=0.8)
        axes.set(title=name, xlabel="round", ylim=(-3, 103))
    panels[0].set_ylabel("judged OOD, %")
    figure.legend(lines.values(), lines, loc="outside right center", fontsize=8)  # beside the panels: it hid lines
    return figure


def rounds_of(run: Run) -> list[tuple[int, float]]:
    return derived(run, "rounds", rounds)


def rounds(run: Run) -> list[tuple[int, float]]:
    """Return (round, share of its images judged OOD in percent) of a cell; [] if it has a finished pool."""
    rows = read_rows(run.folder / "metrics.jsonl")
    return [(row["step"], 100 * (1 - row["fragile_share"])) for row in rows if "fragile_share" in row]
