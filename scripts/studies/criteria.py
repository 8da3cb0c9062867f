"""Study 10: ATEsc by eight criteria that call equal shares fragile."""

from dfkd.report.runs import Run
from studies.pages import Page
from studies.scenarios import compared


def criterion(run: Run) -> str:
    defense = run.config["defense"]
    return "undefended" if defense["name"] == "none" else defense["criterion"]["name"]


def page(cells: list[Run]) -> Page:
    """Return every criterion against the attack, in every scenario."""
    return compared(cells, criterion, "pgd", ("fragile", "teacher evals"))
