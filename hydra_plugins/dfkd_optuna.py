"""`hydra/sweeper=optuna`. Hydra finds plugins only in the package hydra_plugins, so it is not in dfkd/."""

import shlex
from collections.abc import Iterable
from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from dfkd.config import own_options
from dfkd.config.cell import Cell, stages_until
from dfkd.errors import ConfigError
from dfkd.run import provenance
from dfkd.sweeps import ledger, presets
from dfkd.sweeps.compose import SweepLoader
from hydra_plugins.dfkd_sweeper import check


class OptunaIsOurs(SearchPathPlugin):
    """Removes the Optuna plugin's own option `optuna`, which minimises, so that conf/hydra/sweeper/optuna.yaml of the
    same name is used. Hydra calls this after it has loaded all plugins and before it composes a configuration."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        ConfigStore.instance().repo["hydra"].get("sweeper", {}).pop("optuna.yaml", None)


class Stopped(Exception):
    """A trial has failed, and fail_fast=true: the search ends."""


class Search(Sweeper):
    """Hydra's Optuna sweeper for cells.

    Optuna maximises what `dfkd.main.task` returns: the student's last validation accuracy on ID images, in percent. A
    cell that fails is a failed trial, listed at the end as in any sweep. Overrides that are no axis are passed to every
    cell unchanged.

    Args:
        params, small, size: axes of a preset, as in `CellSweeper`; an axis on the command line replaces one of the same
            key.
        grids: as in `CellSweeper`; a search has none.
        others: options of the Optuna plugin: sampler, n_trials, n_jobs, storage, study_name.

    Raises:
        ConfigError: there is nothing to search, or a cell is wrong; nothing was launched.
    """

    def __init__(self, params: dict | None, small: dict | None, size: str, grids: dict | None = None, **others: object):
        from hydra_plugins.hydra_optuna_sweeper._impl import OptunaSweeperImpl
        from optuna import logging

        if grids:
            raise ConfigError(
                f"hydra/sweeper=optuna searches one grid, and this preset is several ({', '.join(grids)}): leave the "
                f"preset out, and give its experiment and axes yourself"
            )
        logging.set_verbosity(logging.WARNING)  # the sweep itself reports the progress of its cells
        self.preset, self.fixed = (params, small, size), []
        of_ours = {"direction": "maximize", "max_failure_rate": 1.0, "params": None}
        self.plugin = OptunaSweeperImpl(**others, **of_ours, search_space=None, custom_search_space=None)
        configured = self.plugin._configure_trials
        self.plugin._configure_trials = lambda *given: [(*self.more(), *words) for words in configured(*given)]

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        hydra_context = HydraContext(SweepLoader(hydra_context.config_loader), hydra_context.callbacks)
        self.loader, self.config = hydra_context.config_loader, config
        self.plugin.setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def sweep(self, arguments: list[str]) -> None:
        from dfkd.sweeps.console import start_logging

        start_logging()
        own_options.check_files(self.config.hydra.runtime.config_sources)
        words = [*presets.words(presets.axes(*self.preset)), *arguments]
        overrides = {word.get_key_element(): word for word in OverridesParser.create().parse_overrides(words)}
        axes = [word for word in overrides.values() if word.is_sweep_override()]
        self.fixed = [word.input_line for word in overrides.values() if not word.is_sweep_override()]
        self.check(axes)
        ledger.set_group("search", words)
        try:
            self.plugin.sweep([axis.input_line for axis in axes])
        except Stopped:
            return
        except ValueError:  # Optuna has no best trial
            if any(row["status"] == "done" for row in ledger.last_rows()):
                raise
            return
        self.say_best()

    def more(self) -> list[str]:
        """Return the overrides that are the same in every trial. Called before every batch of trials.

        Raises:
            Stopped: a trial has failed, and fail_fast=true.
        """
        if self.cell.config["fail_fast"] and ledger.has_failed():
            raise Stopped
        return self.fixed

    def check(self, axes: list[Override]) -> None:
        """Raise ConfigError if there is no axis, or an axis or option that a search does not allow."""
        if not axes:
            raise ConfigError(
                "hydra/sweeper=optuna has nothing to search: give an axis, such as "
                "'synthesizer.lr=tag(log,interval(1e-4,1e-2))' or defense=none,atesc"
            )
        for axis in axes:
            if axis.key_or_group == "seed" or axis.key_or_group.startswith("seeds."):
                raise ConfigError(
                    f"{axis.input_line}: a search over seeds finds the luckiest one; give one seed, and run the best "
                    f"values with others afterwards"
                )
        cfg = self.compose(map(sample, axes))
        with open_dict(cfg):
            del cfg["hydra"]
        self.cell = Cell(cfg)
        check([self.cell])
        if self.cell.config["dry_run"]:
            raise ConfigError(
                "dry_run=true: a search chooses its cells by the results of others, nobody knows them before"
            )
        if self.cell.config["student"].get("replicas", 1) != 1:
            raise ConfigError("a search goes by the score of one student a trial: leave out student.replicas")
        if "student" not in stages_until(self.cell.config):
            raise ConfigError(
                f"until={self.cell.config['until']} trains no student, and hydra/sweeper=optuna goes by its validation "
                f"accuracy"
            )

    def compose(self, words: Iterable[str]) -> DictConfig:
        """Return the configuration of the cell with these overrides and the fixed ones."""
        return self.loader.load_sweep_config(self.config, [*self.fixed, *words])

    def say_best(self) -> None:
        best = OmegaConf.load(Path(self.config.hydra.sweep.dir) / "optimization_results.yaml")
        words = [f"{key}={value}" for key, value in best.best_params.items()]
        print(f"\nbest validation accuracy on ID: {best.best_value:.2f} with {' '.join(words)}")
        print(f"  dfkd {shlex.join(provenance.arguments(self.compose(words).hydra))}")


def sample(axis: Override) -> str:
    """Return an override that sets an axis to its first value, or to the lower end of its interval."""
    if axis.value_type in (ValueType.CHOICE_SWEEP, ValueType.SIMPLE_CHOICE_SWEEP):
        value = next(axis.sweep_string_iterator())
    elif axis.is_range_sweep() or axis.is_interval_sweep():
        value = axis.value().start
    else:
        raise ConfigError(f"{axis.input_line}: an axis of a search is a,b,c or range(...) or interval(...)")
    return f"{axis.get_key_element()}={value}"
