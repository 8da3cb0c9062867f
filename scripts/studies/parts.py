"""Study 3: which part of CAKE carries it, by an analysis of variance over all combinations of four parts."""

from dfkd.report.runs import Run
from studies.pages import Page, by, compare, intervals, summary, table
from studies.statistics import analysis_of_variance, holm, p_text

WHOLE = "the whole recipe"


def parts_of(run: Run) -> dict[str, bool]:
    """Return {part: whether the cell has it} for the parts of the analysis."""
    config = run.config
    return {
        "contrast": config["synthesizer"]["contrast_weight"] > 0,
        "falling step size": config["noise"]["name"] != "constant",
        "prior": bool(config["prior"]),
        "groups of 10, not 2": config["synthesizer"]["groups"] == 10,
    }


def is_in_design(run: Run) -> bool:
    """Whether a cell belongs to the complete design: with the class term, and contrast by squared distances."""
    synthesizer = run.config["synthesizer"]
    return synthesizer["class_weight"] > 0 and synthesizer["contrast"] == "mse"


def effects(cells: list[Run]) -> str:
    """Return the analysis of variance of student ID accuracy as a table."""
    on: dict[str, list[bool]] = {}
    for run in cells:
        for part, is_on in parts_of(run).items():
            on.setdefault(part, []).append(is_on)
    values = [run.result["student"]["iacc"] for run in cells]
    found, freedom = analysis_of_variance(on, [run.seed for run in cells], values)
    adjusted = dict(zip(found, holm([effect.p for effect in found.values()]), strict=True))
    rows = [
        [term, f"{effect.size:+.1f}", f"{100 * effect.share:.0f}", p_text(effect.p), p_text(adjusted[term])]
        for term, effect in sorted(found.items(), key=lambda item: -item[1].share)
    ]
    head = ["part, or two of them", "effect on student ID, points", "share of the variance, %", "p", "p (Holm)"]
    return f"{table(head, rows)}\n\nF-tests with 1 and {freedom} degrees of freedom; seeds are blocks."


def combination(run: Run) -> str:
    """Return the name of a cell's combination, by what it lacks."""
    synthesizer = run.config["synthesizer"]
    lacking = [
        f"no {part}" if "not" not in part else "groups of 2" for part, is_on in parts_of(run).items() if not is_on
    ]
    if synthesizer["class_weight"] == 0:
        lacking.append("no class term")
    if synthesizer["contrast"] != "mse":
        lacking.append("SNN contrast")
    return ", ".join(lacking) or WHOLE


def page(cells: list[Run]) -> Page:
    """Return the analysis of variance, every combination against the whole recipe, and their bars."""
    groups = by(cells, combination)
    groups = {WHOLE: groups.pop(WHOLE)} | dict(sorted(groups.items(), key=lambda item: -mean(item[1])))
    every = compare(groups, ["student ID", "agreement", "teacher ID"], WHOLE, ["student ID"])
    text = f"{effects([run for run in cells if is_in_design(run)])}\n\nEvery combination:\n\n{every}"
    return Page(text, intervals(groups, "student ID", "student ID accuracy, %"))


def mean(runs: list[Run]) -> float:
    return summary(runs, "student ID").mean
