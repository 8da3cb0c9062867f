"""What a finished cell came to, beside what was reported of the whole recipe, and how far the budgets differ."""

import copy
import re
from types import SimpleNamespace

from dfkd.config import paper
from dfkd.config.cell import Cell
from gpu import compose

NEAR = 0.95  # share of the recipe's steps from which on a number may be compared
TEACHER = 0.5  # percentage points by which the teachers may differ


def file_name(row: str) -> str:
    """Return the name of a row as that of a file."""
    return re.sub(r"\W+", "_", row)


def of(cell: Cell, machine: dict) -> dict | None:
    """Return the record of a cell, or None if it is not finished."""
    result = cell.finished_result()
    if result is None:
        return None
    student, teacher = result["student"], result["teacher"]
    share = steps(cell.config) / steps(recipe(cell).config)
    reported = {name: number(cell, path) for name, path in (("id", "student.iacc"), ("asr", "student.asr"))}
    reported["teacher"] = number(cell, "teacher.iacc")
    why = why_not(share, teacher["iacc"], reported)
    return machine | {
        "reported": reported,
        "measured": {
            "id": student["iacc"],
            "agreement": student.get("agreement"),
            "asr": student.get("asr"),
            "teacher": teacher["iacc"],
            "minutes": round(result["seconds"] / 60, 2),
        },
        "share_of_recipe": float(f"{share:.2g}"),
        "not_comparable": why,
    }


def recipe(cell: Cell) -> Cell:
    """Return the whole recipe of a short cell."""
    method = cell.config["synthesizer"]["name"]
    return compose.cell(f"experiment={method}/cifar10")


def steps(config: dict) -> float:
    """Return how many images a student is trained on, up to a factor that the sizes of a method have in common."""
    student, synthesizer = config["student"], config["synthesizer"]
    if student["steps"] is not None:
        rounds = synthesizer["rounds"] - synthesizer.get("warm_up", 0)
        return rounds * student["steps"] * student["recipe"]["batch_size"]
    return student["epochs"] * synthesizer.get("rounds", 1) * synthesizer.get("batch_size", 1)


def number(cell: Cell, path: str) -> dict | None:
    """Return the published number of a measure, with its source, or None."""
    config = copy.deepcopy(cell.config)
    config["ntl_scenario"]["id"]["name"] = "cifar10"  # also where it was read from an archive
    if config["synthesizer"]["name"] == "cake":
        config["noise"]["decades"] = 4  # the recipe's; the short preset's own is a part of what differs
    for table in ("cifar10", "atesc"):
        found = paper.published([SimpleNamespace(config=config | {"paper": table})], path)
        if found is not None and (table == "atesc") == (config["ntl_scenario"]["name"] == "backdoor"):
            return {"value": found.value, "source": found.source}
    return None


def why_not(share: float, teacher: float, reported: dict) -> str | None:
    """Return why measured and reported numbers cannot be compared, or None if they can."""
    if reported["id"] is None and reported["asr"] is None:
        return "nothing is reported"
    reasons = [f"{share:.1%} of the recipe's steps"] if share < NEAR else []
    known = reported["teacher"]
    if known is not None and abs(known["value"] - teacher) > TEACHER:
        reasons.append(f"teacher {teacher:.1f} instead of {known['value']:.1f}")
    return "; ".join(reasons) or None
