"""Where a result comes from: the command that made it, and the state of the code."""

import shlex
import subprocess
from pathlib import Path

from hydra.core.hydra_config import HydraConfig

CHECKOUT = Path(__file__).resolve().parents[1]


def arguments() -> list[str] | None:
    """The command line that repeats the present cell alone; None outside of Hydra."""
    if not HydraConfig.initialized():
        return None
    hydra = HydraConfig.get()
    own = [f"--config-dir={s.path}" for s in hydra.runtime.config_sources if s.provider == "command-line"]
    return own + list(hydra.overrides.task)


def command() -> str | None:
    """The same as one line for a shell."""
    given = arguments()
    return None if given is None else shlex.join(["dfkd", *given])


def commit() -> str | None:
    """The commit of this package's checkout, with '-dirty' where files were changed; None for an installed package."""
    if not (CHECKOUT / ".git").exists():
        return None
    asked = ["git", "-C", str(CHECKOUT), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, timeout=10, check=True).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None
