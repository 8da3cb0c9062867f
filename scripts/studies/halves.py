"""Study 9: calibrated distillation and forgetting, alone and together."""

from dfkd.report.runs import Run
from studies.pages import Page, by, by_seed, table
from studies.scenarios import TRAPS, compared, scenario, trap
from studies.statistics import holm, p_text, t_interval

NAMES = {"none": "neither", "ckd": "calibrated alone", "forgetting": "forgetting alone", "atesc": "both"}


def half(run: Run) -> str:
    return NAMES[run.config["defense"]["name"]]


def interaction(cells: list[Run]) -> str:
    """Return the interaction, both - calibrated alone - forgetting alone + neither, paired by seed: in every scenario,
    and over all of them, where a value is of one scenario and seed."""
    found: dict[str, list[float]] = {}
    for name, runs in by(cells, scenario).items():
        for head in ("student ID", trap(name)):
            both, calibrated, forgetting, neither = (
                by_seed([run for run in runs if half(run) == group], head)
                for group in ("both", "calibrated alone", "forgetting alone", "neither")
            )
            seeds = both.keys() & calibrated.keys() & forgetting.keys() & neither.keys()
            values = [both[s] - calibrated[s] - forgetting[s] + neither[s] for s in sorted(seeds)]
            found[f"{name}, {head}"] = values
            found.setdefault(f"all scenarios, {head if head == 'student ID' else TRAPS}", []).extend(values)
    found = dict(sorted(found.items(), key=lambda entry: entry[0].startswith("all")))  # these last
    tests = {name: t_interval(values) for name, values in found.items()}
    adjusted = holm([test.p for test in tests.values()])
    rows = [[name, test.n, test, p_text(p)] for (name, test), p in zip(tests.items(), adjusted, strict=True)]
    return table(["interaction of the halves", "n", "points (95 %)", "p (Holm)"], rows)


def page(cells: list[Run]) -> Page:
    """Return the four groups in every scenario, and the interaction of the halves."""
    made = compared(cells, half, "neither", ("fragile",))
    return Page(f"{made.text}\n\n{interaction(cells)}", made.figure)
