"""The sweeper of `dfkd -m`. Hydra finds plugins only in the package hydra_plugins, so it is not in dfkd/."""

import functools
import logging
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from dfkd.config import own_options, paper
from dfkd.config.cell import Cell, cells_of
from dfkd.errors import ConfigError
from dfkd.run import provenance
from dfkd.sweeps import ledger, presets, relaunch
from dfkd.sweeps.compose import SweepLoader
from dfkd.sweeps.dry_run import plan_all
from dfkd.sweeps.progress import Progress, with_progress

log = logging.getLogger("dfkd")
IN_POOLS = ("ParallelLauncher", "GpuLauncher")  # launchers whose cells run in a pool of processes


class CellSweeper(BasicSweeper):
    """Launches all combinations of the swept values, as Hydra's basic sweeper does, with these differences:

    - all cells are composed, and their options checked, before the first one starts;
    - finished cells are not launched again;
    - one line shows the progress of the others;
    - a preset may have its axes in two sizes, or be several grids.

    Args:
        max_batch_size: as in Hydra's basic sweeper; null launches all cells in one batch.
        params: axes of a preset, {key: values}; an axis on the command line replaces one of the same key.
        small: smaller axes of the preset, which fit a CPU.
        size: 'paper' for `params`, 'small' for `small`.
        grids: {name: axes}: the sweep is one grid after the other, each with the axes above and its own.

    Raises:
        ConfigError, HydraException: a cell is wrong; nothing was launched.
    """

    def __init__(
        self, max_batch_size: int | None, params: dict | None, small: dict | None, size: str, grids: dict | None
    ):
        super().__init__(max_batch_size, params)
        self.small, self.size, self.grids = small, size, grids

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        # the launcher uses this loader too, so cells that the sweep has composed are not composed again
        hydra_context = HydraContext(SweepLoader(hydra_context.config_loader), hydra_context.callbacks)
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        # by name: Hydra executes the modules of its plugins again, so their classes are not the imported ones
        self.no_pool = type(self.launcher).__name__ in IN_POOLS and not has_semaphores()
        if self.no_pool:
            self.launcher = BasicLauncher()
            self.launcher.setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def sweep(self, arguments: list[str]) -> list[Sequence[JobReturn]]:
        from dfkd.sweeps.console import start_logging

        start_logging()
        own_options.check_files(self.config.hydra.runtime.config_sources)
        if self.no_pool:
            log.warning(
                "cells run one after the other: this machine has no semaphores for processes (is there a /dev/shm?)"
            )
        jobs, known = [], set()
        with ThreadPoolExecutor() as threads:  # results and students are checked while the next cells are composed
            for words, command, cells in self.compose(arguments):
                new = [cell for cell in cells if cell.folder not in known]  # two values may give the same cell
                known.update(cell.folder for cell in new)
                repeats = [presets.single_cell_arguments(command, cell) for cell in new]
                jobs.append((words, repeats, new, threads.map(Cell.finished_result, new)))
        listed = [(words, list(zip(cells, repeats, results, strict=True))) for words, repeats, cells, results in jobs]
        for cell, _, result in (row for _, job in listed for row in job):
            if result is not None:
                paper.renew(cell, result)
        waiting = [(words, job[0][0]) for words, job in listed if any(result is None for _, _, result in job)]
        check([cell for _, cell in waiting])
        ledger.announce([job for _, job in listed])
        if not waiting:
            return []
        if waiting[0][1].config["dry_run"]:
            plan_all([cell for _, job in listed for cell, _, result in job if result is None])
            return []
        fail_fast = waiting[0][1].config["fail_fast"]
        at_once = 1 if fail_fast and isinstance(self.launcher, BasicLauncher) else self.max_batch_size or len(waiting)
        returned: list[Sequence[JobReturn]] = []
        with Progress():
            for first in range(0, len(waiting), at_once):
                if fail_fast and ledger.has_failed():
                    break
                batch = [words for words, _ in waiting[first : first + at_once]]
                returned.append(relaunch.launch(self.launcher, batch, first))
        return returned

    def compose(self, arguments: list[str]) -> Iterator[tuple[list[str], list[str], list[Cell]]]:
        """Yield (overrides, arguments of `dfkd` that repeat it, cells) of every job of the sweep."""
        loader = self.hydra_context.config_loader
        parser = OverridesParser.create(config_loader=loader)
        every = []
        for axes in presets.grids(presets.axes(self.params, self.small, self.size), self.grids):
            overrides = parser.parse_overrides([*presets.words(axes), *arguments])
            every += self.split_arguments(overrides, None)[0]
        for number, words in enumerate(with_progress(every, len(every), "composed")):
            cfg = loader.load_cell(self.config, list(words), number)
            yield words, provenance.arguments(), cells_of(cfg)


@functools.cache
def has_semaphores() -> bool:
    """Return whether processes can share a semaphore on this machine; a pool of processes needs one."""
    try:
        multiprocessing.Semaphore()
        return True
    except (ImportError, OSError):
        return False


def check(cells: list[Cell]) -> None:
    """Raise ConfigError with all mistakes in the names and types of the options of these cells, one per line."""
    if not cells:
        return
    from dfkd.stages.checks import check_names  # imports torch, which a sweep of finished cells does not need

    looked_at = with_progress(cells, len(cells), "checked")
    problems = dict.fromkeys(problem for cell in looked_at for problem in check_names(cell.config).problems)
    if problems:
        raise ConfigError("\n".join(problems))
