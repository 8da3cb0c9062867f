"""Mistakes in the user's own option files that Hydra ignores silently."""

import functools
import itertools
import re
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from dfkd.config.build import nearest
from dfkd.config.lookup import value_at
from dfkd.config.paths import CONF, CONFIG
from dfkd.errors import ConfigError

GLOBAL = ("experiment", "ablation", "networks", "debug")  # groups whose options set values outside of their group
HEADER = "# @package _global_"  # the first line of their files
# Their options are those of conf/config.yaml.
SECTIONS = "", "seeds", "data", "attack", "evaluate", "evaluate.premise"
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


def check_known(config: dict, cfg: DictConfig) -> None:
    """Raise ConfigError if the whole configuration or one of SECTIONS has an option that conf/config.yaml lacks: no
    code reads it, so a misspelt option would have no effect. Values that others refer to by `${...}` are allowed.

    Args:
        config: the configuration with all references resolved.
        cfg: the same, unresolved.
    """
    unknown = {
        f"{section}.{key}".lstrip("."): nearest(str(key), known)
        for section, known in _known().items()
        for key in (value_at(config, section) if section else config)
        if key not in known
    }
    if not unknown:
        return
    references = re.findall(r"\$\{([^{}]*)\}", OmegaConf.to_yaml(cfg))
    used = {name for reference in references for name in re.findall(r"[\w-]+", reference)}
    problems = [
        f"{option}: there is no such option{hint}"
        for option, hint in unknown.items()
        if option.rpartition(".")[2] not in used
    ]
    if problems:
        raise ConfigError("\n".join(problems))


@functools.cache
def _known() -> dict[str, list[str]]:
    """Return the options of every section of SECTIONS; '' stands for the whole configuration."""
    shipped = OmegaConf.to_container(OmegaConf.load(CONF / f"{CONFIG}.yaml"))
    groups = [group for entry in shipped.pop("defaults") if isinstance(entry, dict) for group in entry]
    names = {section: list(value_at(shipped, section) if section else shipped) for section in SECTIONS}
    names[""] += [group for group in groups if re.fullmatch(r"\w+", group)]
    return names


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
