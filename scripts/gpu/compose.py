"""Cells from the words of a command line, without the command line."""

import functools

from dfkd.config.cell import Cell
from dfkd.main import CONF
from dfkd.sweeps.compose import composed


@functools.cache
def cell(*overrides: str) -> Cell:
    """Return the cell that `dfkd OVERRIDES` would run."""
    return Cell(composed(*overrides))


def options(group: str) -> list[str]:
    """Return the names of the options of a group."""
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))
