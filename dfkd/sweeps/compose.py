"""Composes the configurations of a sweep's cells like Hydra, but shared work only once."""

import copy
import functools
import pickle
from typing import Any

import omegaconf.base
from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.config_repository import ConfigRepository, IConfigRepository
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import DictConfig, ValueNode, open_dict, read_write

from dfkd.config.paths import CONF, CONFIG


class ReadOnce(ConfigRepository):
    """Reads every YAML file only once per sweep, which saves a third of the time of composing.

    The content is stored as a pickle, because unpickling takes a quarter of the time of `copy.deepcopy`.
    """

    def __init__(self, repository: IConfigRepository):
        self.sources = repository.get_sources()
        self.read: dict[str, bytes] = {}

    def __deepcopy__(self, memo: dict) -> "ReadOnce":  # Hydra copies its repository for every composition
        return copy.copy(self)

    def load_config(self, config_path: str) -> ConfigResult | None:
        if config_path not in self.read:
            self.read[config_path] = pickle.dumps(super().load_config(config_path))
        return pickle.loads(self.read[config_path])


class Changes:
    """The values that the overrides of one cell replace in a configuration which the next cells use, too."""

    def __init__(self):
        self.noted: list[tuple[DictConfig, str, Any]] = []

    def note(self, cfg: DictConfig, overrides: list[Override]) -> bool:
        """Note the values that these overrides will replace.

        Returns:
            False if one of them does not just set an existing number, word or null to another one; then nothing is
            noted.
        """
        noted = [self._replaced(cfg, override) for override in overrides]
        if None in noted:
            return False
        self.noted = noted
        return True

    def undo(self) -> None:
        """Set the noted values again, the first value last if an option was set twice."""
        for section, key, value in reversed(self.noted):
            section[key] = value
        self.noted = []

    @staticmethod
    def _replaced(cfg: DictConfig, override: Override) -> tuple[DictConfig, str, Any] | None:
        if override.type is not OverrideType.CHANGE or override.package is not None:
            return None
        *sections, key = override.key_or_group.split(".")
        section = cfg
        for name in sections:  # not with OmegaConf.select, which follows an interpolation into another section
            section = section._get_node(name) if isinstance(section, DictConfig) else None
        if not isinstance(section, DictConfig) or section._is_none() or isinstance(override.value(), dict | list):
            return None
        node = section._get_node(key)
        return (section, key, node._value()) if isinstance(node, ValueNode) else None


class SweepLoader(ConfigLoaderImpl):
    """Composes cells like Hydra's loader, but only once per combination of options of groups.

    Overrides that set values are then applied to a copy, which takes a tenth of the time; or, where they only set
    existing values (`Changes`), to the composed configuration itself, and are undone for the next cell.

    Args:
        loader: Hydra's loader, which composed the configuration of the sweep.
    """

    def __init__(self, loader: ConfigLoaderImpl):
        self.hydras = loader
        self.config_search_path, self.repository = loader.get_search_path(), ReadOnce(loader.repository)
        self.parse = functools.cache(OverridesParser.create().parse_override)
        self.is_group = functools.cache(self.repository.group_exists)
        self.composed: dict[tuple[str, ...], bytes] = {}
        self.without_hydra: dict[tuple[str, ...], tuple[DictConfig, bytes, DictConfig]] = {}
        self.changes = Changes()
        parse_each_interpolation_once()

    def __reduce__(self) -> tuple:
        """Pickle as Hydra's loader, so that processes of a parallel launcher do not receive all composed cells."""
        return copy.copy, (self.hydras,)

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """Compose the configuration of the cell with these overrides.

        Args:
            master_config: the configuration of the sweep, the same in every call.
            sweep_overrides: overrides as on the command line, each with a single value.

        Raises:
            HydraException: an option does not exist, or has no such value.
        """
        options, values = self.options_and_values(sweep_overrides)
        cfg = self.with_options(master_config, options)
        self._apply_overrides_to_config(values, cfg)
        self.describe(cfg.hydra, sweep_overrides)
        return cfg

    def load_cell(self, master_config: DictConfig, sweep_overrides: list[str], number: int) -> DictConfig:
        """Like `load_sweep_config`, but without the section `hydra`, which becomes the current `HydraConfig`.

        Cells with the same options share that section, since a copy of it takes longer than all else. It is therefore
        that of the last cell only.

        Args:
            number: the number of the cell in the sweep (`hydra.job.num`).

        Returns:
            the configuration, which is right until the next call.
        """
        options, values = self.options_and_values(sweep_overrides)
        if options not in self.without_hydra:
            cfg = self.with_options(master_config, options)
            HydraConfig.instance().set_config(cfg)
            with open_dict(cfg):
                del cfg["hydra"]
            self.without_hydra[options] = cfg, pickle.dumps(cfg), HydraConfig.instance().cfg
        self.changes.undo()
        cfg, pickled, holder = self.without_hydra[options]
        if not self.changes.note(cfg, values):
            cfg = pickle.loads(pickled)
        self._apply_overrides_to_config(values, cfg)
        holder.hydra._set_parent(cfg)
        with read_write(holder.hydra):
            holder.hydra.job.id = holder.hydra.job.num = number
            self.describe(holder.hydra, sweep_overrides)
        HydraConfig.instance().cfg = holder
        return cfg

    def options_and_values(self, overrides: list[str]) -> tuple[tuple[str, ...], list[Override]]:
        """Return (overrides that choose options of groups, overrides that set values)."""
        parsed = [self.parse(word) for word in overrides]
        values = [override for override in parsed if self.sets_a_value(override)]
        return tuple(override.input_line for override in parsed if override not in values), values

    def with_options(self, master_config: DictConfig, options: tuple[str, ...]) -> DictConfig:
        """Return the configuration of the cells that choose these options of groups."""
        if options not in self.composed:
            self.composed[options] = pickle.dumps(super().load_sweep_config(master_config, list(options)))
        return pickle.loads(self.composed[options])

    def describe(self, hydra: DictConfig, overrides: list[str]) -> None:
        """Set what the section `hydra` says about the overrides of a cell."""
        form, parsed = hydra.job.config.override_dirname, [self.parse(word) for word in overrides]
        hydra.overrides.task = list(overrides)
        hydra.job.override_dirname = get_overrides_dirname(parsed, form.exclude_keys, form.item_sep, form.kv_sep)

    def sets_a_value(self, override: Override) -> bool:
        """Whether an override only sets a value, and does not choose an option of a group."""
        if override.is_hydra_override():
            return False
        return isinstance(override.value(), dict) or not self.is_group(override.key_or_group)


def parse_each_interpolation_once() -> None:
    """Make OmegaConf parse an interpolation such as `${seed}` once, and not again for every cell: that takes half of
    the time of resolving a configuration. Nothing changes a parsed interpolation."""
    if not hasattr(omegaconf.base.parse, "cache_info"):
        omegaconf.base.parse = functools.lru_cache(maxsize=1000)(omegaconf.base.parse)


def composed(*overrides: str) -> DictConfig:
    """Return the configuration that `dfkd OVERRIDES` would run, for scripts and tests that start no command line. Every
    option file is read once."""
    loader, master = _shipped()
    cfg = loader.load_sweep_config(master, list(overrides))
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg


@functools.cache
def _shipped() -> tuple[SweepLoader, DictConfig]:
    """Return a loader of the shipped options, and the configuration that it starts from."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        loader = SweepLoader(GlobalHydra.instance().config_loader())
        return loader, loader.load_configuration(CONFIG, [], RunMode.RUN)
