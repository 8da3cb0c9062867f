"""Cells from the words of a command line, without the command line."""

import functools

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict

from dfkd.config.cell import Cell
from dfkd.main import CONF
from dfkd.sweeps.compose import SweepLoader


@functools.cache
def _loader() -> tuple[SweepLoader, DictConfig]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        loader = SweepLoader(GlobalHydra.instance().config_loader())
        return loader, loader.load_configuration("config", [], RunMode.RUN)


@functools.cache
def cell(*overrides: str) -> Cell:
    """Return the cell that `dfkd OVERRIDES` would run."""
    loader, master = _loader()
    config = loader.load_sweep_config(master, list(overrides))
    with open_dict(config):
        del config["hydra"]
    return Cell(config)


def options(group: str) -> list[str]:
    """Return the names of the options of a group."""
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))
