"""Mistakes in option files of the user's own that Hydra passes over in silence."""

import itertools
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from dfkd.errors import ConfigError

GLOBAL = ("experiment", "ablation", "networks", "debug")  # groups whose options set what lies elsewhere
HEADER = "# @package _global_"  # the first line of their files
MARK = b"\xef\xbb\xbf"  # with which some editors begin a text in UTF-8


def check_headers(cfg: DictConfig) -> None:
    """Raise ConfigError if an experiment or its like has no header: its values then lie where nobody reads them."""
    for group in GLOBAL:
        keys = list(cfg.get(group) or ())
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
    """Raise ConfigError if a folder of options has one that is never read, as another folder before it has one of the
    same name. A copy of the same content does not matter.

    Args:
        sources: hydra.runtime.config_sources.
    """
    folders = list(dict.fromkeys(Path(source.path) for source in sources if source.schema == "file"))
    for folder, later in itertools.combinations(folders, 2):
        for file in sorted(folder.rglob("*.yaml")):  # not of the later one: it may be a folder with everything in it
            same_name = later / file.relative_to(folder)
            if same_name.is_file() and same_name.read_bytes() != file.read_bytes():
                raise ConfigError(f"{same_name} is never read, since {file} has its name: give it another one")


def _file(group: str) -> Path | None:
    """The file of the option that was chosen in a group, if that is known."""
    if not HydraConfig.initialized():
        return None
    runtime = HydraConfig.get().runtime
    files = (Path(source.path) / group / f"{runtime.choices.get(group)}.yaml" for source in runtime.config_sources)
    return next(filter(Path.is_file, files), None)
