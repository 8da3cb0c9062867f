"""Runs one cell, from its configuration to its run folder."""

import contextlib
import logging
import os
import platform
import time
import traceback
from collections.abc import Sequence

from safetensors.torch import save_file

from dfkd.config.cell import Cell
from dfkd.errors import NonFiniteLoss
from dfkd.machine import distributed
from dfkd.machine.precision import float32_arithmetic
from dfkd.resume.state import CheckpointMismatch
from dfkd.run.provenance import command
from dfkd.run.result import make_result
from dfkd.stages.components import Components
from dfkd.stages.pipeline import Pipeline
from dfkd.stages.precision import choose_precision
from dfkd.stages.prepare import prepare
from dfkd.stages.stage import PlannedStage, planned_stages
from dfkd.store.run_folder import RunFolder
from dfkd.tracker import GuardedTracker

log = logging.getLogger("dfkd")


def run_cell(cell: Cell, siblings: Sequence[Cell] = (), group: str | None = None, quiet: bool = False) -> dict:
    """Run a cell, or return its result if it is finished already.

    Args:
        siblings: cells that differ only in the seed of the student and will be run next. Their students may be trained
            together with this one.
        group: name of the group of the sweep's runs in W&B.
        quiet: whether to hide the progress bars.

    Returns:
        the content of its result.json; {} on other ranks than the first if the cell was run.

    Raises:
        ConfigError: the cell cannot run; nothing was computed.
        Exception: the run failed. The run folder's status.json holds the error; finished stages stay in the store.
    """
    with distributed.first_local_rank_first():
        components = prepare(cell)
    for warning in components.warnings:
        log.warning("  WARNING  %s", warning)
    distributed.barrier()  # no rank begins before all of them are prepared
    lock = RunFolder(cell.folder).lock() if distributed.is_first() else contextlib.nullcontext()
    with lock, float32_arithmetic("ieee"):
        # Another process may have finished the cell while this one waited for the lock.
        result = distributed.on_first_rank(cell.finished_result)
        if result is not None:
            return result
        try:
            return _run(cell, components, siblings, group, quiet)
        except CheckpointMismatch as error:
            log.warning("  WARNING  a checkpoint does not fit and is dropped, its stage begins anew (%s)", error)
            return _run(cell, prepare(cell), siblings, group, quiet)


def _run(cell: Cell, components: Components, siblings: Sequence[Cell], group: str | None, quiet: bool) -> dict:
    pipeline = Pipeline(cell, components, GuardedTracker(components.tracker), siblings, quiet)
    if not distributed.is_first():
        components.runtime = choose_precision(cell, components)
        pipeline.make()
        return {}
    folder, tracker, result = RunFolder(cell.folder), pipeline.tracker, None
    pipeline.check_access()
    before = folder.undamaged_result() or {}
    folder.begin(cell.config, keys(pipeline.run.planned))
    for sibling in siblings:  # their students may be made with this one: `gc` must keep them, even if we are killed
        stages = keys(planned_stages(sibling, components))
        RunFolder(sibling.folder).expect(sibling.config, stages, cell.name, command())
    process = {"pid": os.getpid(), "host": platform.node(), "started": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
    folder.set_status("running", command=command(), **process)
    try:
        tracker.start(cell.folder, cell.name, cell.config, group)
        began = time.monotonic()
        components.runtime = choose_precision(cell, components)
        pipeline.make()
        result = with_earlier(before, make_result(pipeline, began))
        for path in sorted(cell.folder.glob("*.png")):
            tracker.image(path.stem, path)
        result = folder.write_result(result)
        folder.set_status("done", command=command())
        return result
    except BaseException as error:
        result, cause = None, distributed.original_error(error)
        kind = "interrupted" if isinstance(cause, KeyboardInterrupt | SystemExit) else "failed"
        text = getattr(cause, "traceback", traceback.format_exc())
        folder.set_status(kind, command=command(), error=f"{type(cause).__name__}: {cause}", traceback=text)
        if isinstance(error, NonFiniteLoss) and error.state is not None:
            last_good = {name: value.contiguous() for name, value in error.state.items()}
            save_file(last_good, cell.folder / "student_last_good.safetensors")
        raise
    finally:
        tracker.finish(result)


def keys(planned: dict[str, PlannedStage]) -> dict[str, str]:
    """Return {name: key} of planned stages."""
    return {name: stage.key for name, stage in planned.items()}


def with_earlier(before: dict, result: dict) -> dict:
    """Add entries of an earlier run's result to a new result, for stages that the new run did not reach (`until`).

    Args:
        before: result of an earlier run in the same folder, or {}; ignored if it is of another cell.
        result: result of the new run; its entries replace earlier ones.
    """
    if before.get("hash") != result["hash"]:
        return result
    return before | result | {"stages": before.get("stages", {}) | result["stages"]}
