"""Study 5: students of synthetic images beside their teacher and a student of real images, beyond accuracy."""

from matplotlib.figure import Figure

from dfkd.report.figures import colour
from dfkd.report.runs import Run
from studies.pages import Page, by, by_seed, summary, table
from studies.statistics import holm, p_text, paired

REAL = "real"
RADII = (1, 2, 4, 8)  # of 255
MEASURES = {  # key in result.json: head of the column
    "iacc": "ID",
    **{f"pgd_{radius}": f"PGD {radius}/255" for radius in RADII},
    "corrupted_1": "corrupted, strength 1",
    "corrupted_3": "strength 3",
    "corrupted_5": "strength 5",
    "ece": "calibration error",
}
TESTED = ("pgd_8", "corrupted_3", "ece")
SHIFT = "shift_"  # the measures of a shift begin with it


def teacher(run: Run) -> str:
    """Return what the training data of a cell's teacher is like."""
    domain = run.config["ntl_scenario"]["id"]
    flaws = {"label noise": domain["label_noise"], "imbalance": domain["imbalance"]}
    return ", ".join(f"{flaw} {amount:g}" for flaw, amount in flaws.items() if amount) or "clean"


def synthesizer(run: Run) -> str:
    return run.config["synthesizer"]["name"]


def measures_of(cells: list[Run]) -> dict[str, str]:
    """Return the measures of the cells, with those of their shifts, as {key: head}."""
    shifts = [key for key in cells[0].config["metrics"] if key.startswith(SHIFT)]
    return MEASURES | {key: f"on {key.removeprefix(SHIFT)}" for key in shifts}


def page(cells: list[Run]) -> Page:
    """Return all measures of teachers and students, and the students' differences to both references."""
    measures = measures_of(cells)
    kinds = {kind: by(runs, synthesizer) for kind, runs in by(cells, teacher).items()}
    rows = []
    for kind, groups in kinds.items():
        every = {"teacher": next(iter(groups.values()))} | groups
        for name, runs in every.items():
            who = "teacher" if name == "teacher" else "student"
            rows.append([kind, name, len(runs), *(summary(runs, f"{who}.{key}") for key in measures)])
    text = table(["training data", "images of", "n", *measures.values()], rows)
    return Page(f"{text}\n\n{differences(kinds, measures)}", picture(kinds))


def differences(kinds: dict[str, dict[str, list[Run]]], measures: dict[str, str]) -> str:
    """Return the students' differences to their teacher and to the student of real images, paired by seed."""
    tests = {}
    for kind, groups in kinds.items():
        for name, runs in groups.items():
            for key in (*TESTED, *(key for key in measures if key.startswith(SHIFT))):
                ours, theirs = by_seed(runs, f"student.{key}"), [by_seed(runs, f"teacher.{key}")]
                if name != REAL and REAL in groups:
                    theirs.append(by_seed(groups[REAL], f"student.{key}"))
                tests[kind, name, measures[key]] = [paired(ours, other) for other in theirs]
    adjusted = iter(holm([test.p for both in tests.values() for test in both]))
    rows = []
    for row, both in tests.items():
        words = [word for test in both for word in (test, p_text(next(adjusted)))]
        rows.append([*row, *words, *[""] * (4 - len(words))])
    head = ["training data", "images of", "measure", "- teacher", "p (Holm)", "- student of real", "p (Holm)"]
    return table(head, rows)


def picture(kinds: dict[str, dict[str, list[Run]]]) -> Figure:
    """Draw accuracy against the radius of the attack, a panel for every kind of training data."""
    figure = Figure(figsize=(3.6 * len(kinds), 3.4))
    panels = figure.subplots(1, len(kinds), squeeze=False, sharey=True)[0]
    names = list(dict.fromkeys(name for groups in kinds.values() for name in groups))  # one colour each in all panels
    for axes, (kind, groups) in zip(panels, kinds.items(), strict=True):
        for name, runs in groups.items():
            look = {"color": colour(names.index(name)), "label": name, "markersize": 3}
            axes.plot((0, *RADII), curve(runs, "student"), "o-", **look)
        axes.plot((0, *RADII), curve(next(iter(groups.values())), "teacher"), "k:", label="teacher")
        axes.set(title=kind, xlabel="radius of PGD, /255", ylim=(-3, 103))
    panels[0].set_ylabel("accuracy, % (mean)")
    panels[0].legend(fontsize=7)
    return figure


def curve(runs: list[Run], who: str) -> list[float]:
    """Return mean accuracy without an attack and at every radius."""
    return [summary(runs, f"{who}.{key}").mean for key in ("iacc", *(f"pgd_{radius}" for radius in RADII))]
