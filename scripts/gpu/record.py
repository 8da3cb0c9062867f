"""What a finished cell came to, beside what was reported of the whole recipe, and how far the budgets differ."""

import re
from types import SimpleNamespace

from dfkd.config import paper
from dfkd.config.cell import Cell
from gpu import work

NEAR = 0.95  # share of the recipe's steps from which on a number may be compared
TEACHER = 0.5  # percentage points by which the teachers may differ


def file_name(row: str) -> str:
    """Return the name of a row as that of a file."""
    return re.sub(r"\W+", "_", row)


def of(cell: Cell, recipe: Cell, machine: dict) -> dict | None:
    """Return the record of a cell, or None if it is not finished.

    Args:
        recipe: the cell of the whole recipe, of which numbers are reported.
        machine: where it was computed.
    """
    result = cell.finished_result()
    if result is None:
        return None
    student, teacher, told = result["student"], result["teacher"], reported(recipe)
    share = work.steps(cell.config) / work.steps(recipe.config)
    return machine | {
        "reported": told,
        "measured": {
            "id": student["iacc"],
            "agreement": student.get("agreement"),
            "asr": student.get("asr"),
            "teacher": teacher["iacc"],
            "minutes": round(result["seconds"]["total"] / 60, 2),
            "tflops": float(f"{work.tflops(cell, result):.3g}"),
        },
        "share_of_recipe": float(f"{share:.2g}"),
        "not_comparable": why_not(share, teacher["iacc"], told),
    }


def reported(recipe: Cell) -> dict[str, dict | None]:
    """Return the published ID accuracy, attack success rate and teacher's ID accuracy of a recipe, with sources."""
    table = "atesc" if recipe.config["ntl_scenario"]["name"] == "backdoor" else "cifar10"
    cells = [SimpleNamespace(config=recipe.config | {"paper": table})]
    paths = {"id": "student.iacc", "asr": "student.asr", "teacher": "teacher.iacc"}
    found = {name: paper.published(cells, path) for name, path in paths.items()}
    return {name: number and {"value": number.value, "source": number.source} for name, number in found.items()}


def why_not(share: float, teacher: float, told: dict) -> str | None:
    """Return why measured and reported numbers cannot be compared, or None if they can."""
    if told["id"] is None and told["asr"] is None:
        return "nothing is reported"
    reasons = [f"{share:.1%} of the recipe's steps"] if share < NEAR else []
    known = told["teacher"]
    if known is not None and abs(known["value"] - teacher) > TEACHER:
        reasons.append(f"teacher {teacher:.1f} instead of {known['value']:.1f}")
    return "; ".join(reasons) or None
