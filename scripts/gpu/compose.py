"""Cells from the words of a command line, without the command line."""

from hydra import compose, initialize_config_dir

from dfkd.config.cell import Cell
from dfkd.main import CONF


def cell(*overrides: str) -> Cell:
    """Return the cell that `dfkd OVERRIDES` would run."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return Cell(compose("config", list(overrides)))


def options(group: str) -> list[str]:
    """Return the names of the options of a group."""
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))
