"""Escape beside other defenses, with its parts switched off, and beside its controls."""

from dfkd.report.runs import Run
from studies.pages import Page
from studies.scenarios import compared


def label(run: Run) -> str:
    """Return the defense of a cell, with the parts that are switched off."""
    defense = run.config["defense"]
    if not defense["name"].startswith("escape"):
        return defense["name"]
    off = {
        "no audit, no carriers": not defense["audit"],
        "no carriers": defense["audit"] and not defense["carrier_rows"],
        "no copy": defense["name"] == "escape" and defense["audit"] and not defense["purify_after"],
        "no relabelling": not defense["relabel"],
        "no scouts": defense["scouts"] is None,
    }
    criterion = defense["criterion"].get("of", defense["criterion"])
    radius = [] if criterion["eps"] == "auto" else [f"radius {criterion['eps']}"]
    return ", ".join([defense["name"], *(words for words, is_off in off.items() if is_off), *radius])


def page(cells: list[Run]) -> Page:
    """Return every defense in every scenario against the undefended student."""
    return compared(cells, label, "none", ("fragile", "teacher evals"))
