"""The folder of the shipped options (in an installed package, or at the top of a checkout), and `~` in paths."""

from pathlib import Path

from omegaconf import OmegaConf

PACKAGE = Path(__file__).resolve().parents[1]
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"
CONFIG = "config"  # name of the primary configuration file in CONF


def expand_home(value: object) -> object:
    """Replace `~` at the beginning of a path by the user's home folder; any other value is returned as it is.

    In YAML files it is the resolver ${home:PATH}.
    """
    in_home = isinstance(value, str) and (value == "~" or value.startswith("~/"))
    return str(Path(value).expanduser()) if in_home else value


def path(text: str) -> Path:
    """Return the path that the user typed as a value on the command line, with `~` replaced."""
    return Path(expand_home(text))


def expand_homes(node: object) -> object:
    """Return a copy of a configuration (dicts, lists, scalars) with `expand_home` applied to every value."""
    if isinstance(node, dict):
        return {key: expand_homes(value) for key, value in node.items()}
    return [expand_homes(value) for value in node] if isinstance(node, list) else expand_home(node)


OmegaConf.register_new_resolver("home", expand_home, replace=True)
