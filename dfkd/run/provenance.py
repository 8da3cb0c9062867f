"""The origin of a result: the command that made it, and the commit of the code."""

import shlex
import subprocess
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from dfkd.config.paths import CONF, CONFIG

CHECKOUT = Path(__file__).resolve().parents[2]


def arguments(hydra: DictConfig | None = None) -> list[str] | None:
    """Return the arguments of `dfkd` that repeat one cell alone; None outside of Hydra.

    Args:
        hydra: the section `hydra` of the cell's configuration; None for that of the current cell.
    """
    if hydra is None and not HydraConfig.initialized():
        return None
    hydra = hydra or HydraConfig.get()
    flags = {"command-line": "--config-dir", "main": "--config-path"}
    sources = [s for s in hydra.runtime.config_sources if s.provider in flags and s.path != str(CONF)]
    own = [f"{flags[source.provider]}={source.path}" for source in sources]
    own += [] if hydra.job.config_name == CONFIG else [f"--config-name={hydra.job.config_name}"]
    own += [word for word in hydra.overrides.hydra if word.startswith("hydra.searchpath=")]
    return own + list(hydra.overrides.task)


def command() -> str | None:
    """Return the shell command that repeats the current cell alone; None outside of Hydra."""
    words = arguments()
    return None if words is None else shlex.join(["dfkd", *words])


def commit() -> str | None:
    """Return the commit of this package's checkout, with '-dirty' if files were changed; None for an installed package,
    or if git fails."""
    if not (CHECKOUT / ".git").exists():
        return None
    call = ["git", "-C", str(CHECKOUT), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(call, capture_output=True, text=True, timeout=10, check=True).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None
