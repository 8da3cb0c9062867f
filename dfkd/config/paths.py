"""Where the shipped options lie: inside an installed package, or at the top of a checkout. What `~` in a path means."""

from pathlib import Path

from omegaconf import OmegaConf

PACKAGE = Path(__file__).resolve().parents[1]
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"
CONFIG = "config"  # the file in it where everything starts


def home(value: object) -> object:
    """A path in which `~` at the beginning is replaced by the user's home folder; any other value as it is. A YAML file
    writes ${home:PATH}."""
    in_home = isinstance(value, str) and (value == "~" or value.startswith("~/"))
    return str(Path(value).expanduser()) if in_home else value


def path(text: str) -> Path:
    """A path as somebody types it behind an option of a command."""
    return Path(home(text))


def homes(node: object) -> object:
    """A configuration (dicts, lists, scalars) in which every such path is replaced so."""
    if isinstance(node, dict):
        return {key: homes(value) for key, value in node.items()}
    return [homes(value) for value in node] if isinstance(node, list) else home(node)


OmegaConf.register_new_resolver("home", home, replace=True)
