"""`dry_run=true`: plans the stages of cells, without computing them."""

import logging

from dfkd.config.cell import Cell
from dfkd.config.memo import Memo
from dfkd.config.messages import explain
from dfkd.sweeps import ledger
from dfkd.sweeps.progress import with_progress

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

    components = prepare(cell, memo)
    for warning in components.warnings:
        log.warning("  WARNING  %s", warning)
    return {
        "status": "planned",
        "stages": {name: stage.key for name, stage in planned_stages(cell, components).items()},
    }


def plan_all(cells: list[Cell]) -> None:
    """Plan all cells of a sweep, and write each plan, or the reason why the cell cannot run, to the sweep's list."""
    memo = Memo()
    rows = {row["folder"]: row for row in ledger.last_rows()}
    for cell in with_progress(cells, len(cells), "planned"):
        try:
            entries = plan(cell, memo)
        except Exception as error:
            entries = {"status": "failed", "error": explain(error)}
            log.error("  FAILED   %s", entries["error"])
        ledger.append(rows[str(cell.folder)] | entries)
        if entries["status"] == "failed" and cell.config["fail_fast"]:
            break
