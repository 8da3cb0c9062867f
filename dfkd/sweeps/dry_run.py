"""`dry_run=true`: plans the stages of cells, without computing them."""

import logging

from dfkd.config.cell import Cell
from dfkd.config.memo import Memo
from dfkd.config.messages import explain
from dfkd.sweeps import ledger
from dfkd.sweeps.progress import counted

log = logging.getLogger("dfkd")


def plan(cell: Cell, memo: Memo | None = None) -> dict:
    """Plan a cell: return the entries of its row in the sweep's list, with the keys of its stages. Logs warnings.

    Args:
        memo: objects of the cells that were planned before (`dfkd.stages.prepare`).

    Raises:
        ConfigError: the cell is not valid; the message lists all mistakes.
    """
    from dfkd.stages.prepare import prepare  # here, because it imports torch, which finished cells do not need
    from dfkd.stages.stage import planned_stages

    parts = prepare(cell, memo)
    for warning in parts.warnings:
        log.warning("  WARNING  %s", warning)
    return {"status": "planned", "stages": {name: stage.key for name, stage in planned_stages(cell, parts).items()}}


def plan_all(cells: list[Cell]) -> None:
    """Plan all cells of a sweep, and write each plan, or the reason why the cell cannot run, to the sweep's list."""
    memo = Memo()
    rows = {row["folder"]: row for row in ledger.standing()}
    for cell in counted(cells, len(cells), "planned"):
        try:
            found = plan(cell, memo)
        except Exception as error:
            found = {"status": "failed", "error": explain(error)}
            log.error("  FAILED   %s", found["error"])
        ledger.append(rows[str(cell.folder)] | found)
        if found["status"] == "failed" and cell.config["fail_fast"]:
            break
