"""Study 9: calibrated distillation and forgetting, alone and together."""

from dfkd.report.runs import Run
from studies.pages import Page, by, by_seed, table
from studies.scenarios import compared, scenario, trap
from studies.statistics import holm, p_text, t_interval

NAMES = {"none": "neither", "ckd": "calibrated alone", "forgetting": "forgetting alone", "atesc": "both"}


def half(run: Run) -> str:
    return NAMES[run.config["defense"]["name"]]


def interaction(cells: list[Run]) -> str:
    """Return the interaction, both - calibrated alone - forgetting alone + neither, paired by seed."""
    tests = {}
    for name, runs in by(cells, scenario).items():
        for head in ("student ID", trap(name)):
            both, calibrated, forgetting, neither = (
                by_seed([run for run in runs if half(run) == group], head)
                for group in ("both", "calibrated alone", "forgetting alone", "neither")
            )
            seeds = both.keys() & calibrated.keys() & forgetting.keys() & neither.keys()
            tests[name, head] = t_interval([both[s] - calibrated[s] - forgetting[s] + neither[s] for s in seeds])
    adjusted = holm([test.p for test in tests.values()])
    rows = [
        [f"{name}, {head}", test, p_text(p)] for ((name, head), test), p in zip(tests.items(), adjusted, strict=True)
    ]
    return table(["interaction of the halves", "points (95 %)", "p (Holm)"], rows)


def page(cells: list[Run]) -> Page:
    """Return the four groups in every scenario, and the interaction of the halves."""
    made = compared(cells, half, "neither", ("fragile",))
    return Page(f"{made.text}\n\n{interaction(cells)}", made.figure)
