"""`dry_run=true`: what a run would do with a cell is looked at, and nothing is computed."""

import logging

from dfkd.config.cell import Cell
from dfkd.config.messages import explain
from dfkd.sweeps import ledger
from dfkd.sweeps.progress import counted

log = logging.getLogger("dfkd")


def plan(cell: Cell) -> dict:
    """What the list of a sweep says of a cell that a run would compute: its stages, and their keys. Warnings about the
    cell are logged.

    Raises:
        ConfigError: everything that is wrong with the cell.
    """
    from dfkd.stages.prepare import prepare  # imports torch, which a plan of finished cells does without
    from dfkd.stages.stage import planned_stages

    parts = prepare(cell)
    for warning in parts.warnings:
        log.warning("  WARNING  %s", warning)
    return {"status": "planned", "stages": {name: stage.key for name, stage in planned_stages(cell, parts).items()}}


def plan_all(cells: list[Cell]) -> None:
    """Note the plan of every cell of a sweep in its list, or why the cell cannot run."""
    rows = {row["folder"]: row for row in ledger.standing()}
    for cell in counted(cells, len(cells), "planned"):
        try:
            found = plan(cell)
        except Exception as error:
            found = {"status": "failed", "error": explain(error)}
            log.error("  FAILED   %s", found["error"])
        ledger.append(rows[str(cell.folder)] | found)
        if found["status"] == "failed" and cell.config["fail_fast"]:
            break
