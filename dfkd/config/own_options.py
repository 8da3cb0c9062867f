"""Mistakes in the user's own option files that Hydra ignores silently."""

import itertools
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from dfkd.errors import ConfigError

GLOBAL = ("experiment", "ablation", "networks", "debug")  # groups whose options set values outside of their group
HEADER = "# @package _global_"  # the first line of their files
MARK = b"\xef\xbb\xbf"  # the byte-order mark, with which some editors begin a UTF-8 file


def check_headers(config: dict) -> None:
    """Raise ConfigError if an option file of a group in GLOBAL lacks HEADER: Hydra then puts its values under the name
    of the group, where no code reads them."""
    for group in GLOBAL:
        keys = list(config.get(group) or ())
        if not keys:
            continue
        file = _file(group)
        marked = file is not None and file.read_bytes().startswith(MARK)
        why = "it begins with a UTF-8 byte-order mark, which hides that line: save it without the mark"
        raise ConfigError(
            f"{group}.{keys[0]} is set where nothing reads it: {file or f'a file of the group {group}'} must have "
            f"'{HEADER}' as its first line" + (f"; {why}" if marked else "")
        )


def check_files(sources: list[DictConfig]) -> None:
    """Raise ConfigError if an option file is never read because a folder earlier in the search path has a file of the
    same name with other content.

    Args:
        sources: hydra.runtime.config_sources.
    """
    folders = list(dict.fromkeys(Path(source.path) for source in sources if source.schema == "file"))
    for folder, later in itertools.combinations(folders, 2):
        for file in sorted(folder.rglob("*.yaml")):  # the later folder is not walked: it may hold many other files
            same_name = later / file.relative_to(folder)
            if same_name.is_file() and same_name.read_bytes() != file.read_bytes():
                raise ConfigError(f"{same_name} is never read, since {file} has its name: give it another one")


def _file(group: str) -> Path | None:
    """Return the file of the option that was chosen in a group; None if it is not known."""
    if not HydraConfig.initialized():
        return None
    runtime = HydraConfig.get().runtime
    files = (Path(source.path) / group / f"{runtime.choices.get(group)}.yaml" for source in runtime.config_sources)
    return next(filter(Path.is_file, files), None)
