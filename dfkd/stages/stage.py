"""The base class of the stages of a run, and the state of a run that is passed to them."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from tqdm import tqdm

from dfkd.config.cell import Cell, is_shipped
from dfkd.errors import refuse_old_names
from dfkd.machine import distributed
from dfkd.resume.checkpoints import Checkpoints
from dfkd.resume.loop import Loop
from dfkd.stages.components import Components
from dfkd.store.store import Artifact, Store

log = logging.getLogger("dfkd")
Log = Callable[[int, dict[str, float]], None]  # a stage calls it with (step, metrics)


@dataclass
class Run:
    """The state of the run of one cell, which is passed to its stages.

    Attributes:
        cell: the cell, with its name and configuration.
        components: the objects of the run.
        store: the store of artifacts.
        siblings: cells that differ only in the seed of the student; their students may be trained together with this
            one.
        quiet: whether to hide the progress bars, for parallel cells that share a terminal.
        checkpoints: saves and restores the state of the current stage.
        stage_outputs: {name: output of `Stage.load`} of the finished stages.
        planned: {name: stage with its key} of the cell.
    """

    cell: Cell
    components: Components
    store: Store
    siblings: Sequence[Cell] = ()
    quiet: bool = False
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    stage_outputs: dict[str, Any] = field(default_factory=dict)
    planned: "dict[str, PlannedStage]" = field(default_factory=dict)

    @property
    def loop(self) -> Loop:
        """The loop function for the long loops of a stage: a run can be stopped between two of their numbers, and
        resumed there (`dfkd.resume.loop`)."""
        return self.checkpoints.loop

    def register(self, **parts: Any) -> None:
        """Name objects that the stage depends on from here to its end; they are saved in its checkpoints."""
        self.checkpoints.register(**parts)

    @property
    def log_calls(self) -> int:
        """The number of rows of metrics so far; after a resume it includes those of the earlier run of the stage."""
        return len(self.checkpoints.rows)

    def say(self, text: str, warns: bool = False) -> None:
        """Write an indented line into the log, as a warning if `warns`."""
        log.log(logging.WARNING if warns else logging.INFO, "  %s", text)

    def bar(self, total: int, what: str, start: int = 0) -> tqdm:
        """Return a progress bar. It is hidden without a terminal, in a quiet run, and on other ranks than the first.

        `start` of its `total` steps are done already.
        """
        silent = True if self.quiet or not distributed.is_first() else None  # None: tqdm hides it without a terminal
        return tqdm(total=total, initial=start, desc=f"  {what}", disable=silent, leave=False, dynamic_ncols=True)


def metrics_row(stage: str, step: int, metrics: dict[str, float]) -> dict:
    """Return a row of metrics.jsonl: stage, step and metrics, rounded to six decimals."""
    return {"stage": stage, "step": step} | {name: round(value, 6) for name, value in metrics.items()}


class Stage(ABC):
    """One step of a run: made once, stored under a key, and loaded for the stages after it.

    To add a stage, write a subclass and name it in a line of YAML under `stages`. The parameters of its constructor are
    its options there.

    Attributes:
        name: its name in the store, in messages and in `until=NAME`.
        version: to be raised by one when a change of the code changes what the stage makes of the same configuration.
        phase: the phase for which its time counts in a result: 'teacher', 'synthesis', 'split', 'distill' or
            'evaluate'.
        inputs: names of the stages whose artifacts it uses. A name is ignored if the run does not have that stage.
        may_end: whether a run may end with this stage (`until`).
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    phase: ClassVar[str] = "evaluate"
    inputs: ClassVar[tuple[str, ...]] = ()
    may_end: ClassVar[bool] = True

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        refuse_old_names(cls, {"why_alone": "single_rank_reason"})

    def is_part(self, cell: Cell, components: Components) -> bool:
        """Return whether a run that ends with a later stage contains this stage."""
        return True

    def fed_by(self, cell: Cell, components: Components) -> tuple[str, ...]:
        """Return the names of the stages whose keys are part of its key. The default is `inputs`; override it if they
        depend on the cell."""
        return self.inputs

    def content(self, cell: Cell, components: Components) -> dict:
        """Return the part of the configuration that can change what the stage makes. The key is a hash of it, the name,
        the version and the keys of the inputs. The default is the stage's own options and the seed."""
        return {"options": cell.config["stages"][self.name], "seed": cell.config["seed"]}

    @abstractmethod
    def make(self, run: Run, folder: Path | None, log: Log) -> dict:
        """Compute the stage and write its files.

        Args:
            run: the cell, its objects, the outputs of the stages before (`run.stage_outputs`), and `run.loop` and
                `run.register`, by which a killed run is resumed inside the stage (`dfkd.resume.loop`).
            folder: the folder for the files; None on all ranks but the first.
            log: called with (step, metrics).

        Returns:
            the metadata for its meta.json, as JSON values. The keys `evals` ({phase: images shown to the teacher}),
            `warnings` and `seconds_by_phase` have a meaning for the result.
        """

    def load(self, run: Run, artifact: Artifact) -> Any:
        """Return the output of the stage for later stages (`run.stage_outputs`). May log a line about it. The default
        is the metadata."""
        return artifact.meta

    def single_rank_reason(self, run: Run) -> str | None:
        """Return the reason why one of several ranks makes the stage alone, for the log; '' if there is little to
        compute; None if all ranks make it together."""
        return ""

    def evals(self, run: Run, artifact: Artifact) -> dict[str, int]:
        """Return {phase: images shown to the teacher} for the result. The default is `evals` of the metadata."""
        return artifact.meta.get("evals", {})

    def result(self, run: Run, artifact: Artifact) -> dict:
        """Return the entries of the stage in result.json. The default is its metadata under its name."""
        bookkeeping = ("seconds", "peak_memory_mb", "evals", "warnings", "ranks")
        return {self.name: {key: value for key, value in artifact.meta.items() if key not in bookkeeping}}

    def warnings(self, run: Run, artifact: Artifact) -> list[str]:
        """Return the warnings for result.json: reasons not to trust the result."""
        return [f"{self.name}: {text}" for text in artifact.meta.get("warnings", [])]


@dataclass(frozen=True)
class PlannedStage:
    """A stage of a cell with its key.

    Attributes:
        stage: the stage.
        content: see `Stage.content`; for a stage outside of this package also its `_target_`.
        inputs: {name: key} of the stages that feed it.
        key: key of its artifact in the store.
    """

    stage: Stage
    content: dict
    inputs: dict[str, str]
    key: str

    @property
    def name(self) -> str:
        return self.stage.name


def planned_stages(cell: Cell, components: Components) -> dict[str, PlannedStage]:
    """Return {name: stage with its key} of a cell up to `until`, in the order in which they are made. The keys are
    computed from the configuration; no stage has to be made for it."""
    planned: dict[str, PlannedStage] = {}
    for stage in components.stages:
        if stage.name == cell.config["until"] or stage.is_part(cell, components):
            inputs = {name: planned[name].key for name in stage.fed_by(cell, components) if name in planned}
            content = stage.content(cell, components) | _own_target(cell, stage.name)
            key = cell.key(stage.name, stage.version, content, inputs)
            planned[stage.name] = PlannedStage(stage, content, inputs, key)
        if stage.name == cell.config["until"]:
            break
    return planned


def _own_target(cell: Cell, name: str) -> dict:
    """Return {'_target_': ...} of a stage outside of this package: its code is part of its key, whatever
    `Stage.content` returns. For a stage of this package return {}."""
    node = cell.config["stages"][name]
    return {} if is_shipped(node) else {"_target_": node["_target_"]}
