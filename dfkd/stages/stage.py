"""What a stage of a run is, and what it finds when it is made."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from tqdm import tqdm

from dfkd.config.cell import Cell, is_shipped
from dfkd.machine import distributed
from dfkd.resume.checkpoints import Checkpoints
from dfkd.resume.loop import Loop
from dfkd.stages.parts import Parts
from dfkd.store.store import Artifact, Store

log = logging.getLogger("dfkd")
Log = Callable[[int, dict[str, float]], None]  # what a stage reports (step, metrics) to


@dataclass
class Run:
    """One cell on its way through its stages: what a stage finds there.

    Attributes:
        cell: its name and configuration.
        parts: its objects.
        store: where artifacts lie.
        siblings: cells that differ in the student's seed only; their students may be trained with this one's.
        quiet: whether to show no progress bars, where cells beside each other share a terminal.
        checkpoints: by which a killed run goes on inside a stage.
        given: what each finished stage has given (`Stage.load`), by name.
        planned: the cell's stages with their keys, by name.
    """

    cell: Cell
    parts: Parts
    store: Store
    siblings: Sequence[Cell] = ()
    quiet: bool = False
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    given: dict[str, Any] = field(default_factory=dict)
    planned: "dict[str, Planned]" = field(default_factory=dict)

    @property
    def loop(self) -> Loop:
        """For the long loops of a stage: between two of their numbers the run can be stopped."""
        return self.checkpoints.loop

    def keep(self, **parts: Any) -> None:
        """Name objects that the stage depends on from here to its end: they are saved with its loops."""
        self.checkpoints.keep(**parts)

    @property
    def reported(self) -> int:
        """Rows of metrics that an earlier, killed run has left of this stage."""
        return len(self.checkpoints.rows)

    def say(self, text: str, warns: bool = False) -> None:
        """A line in the log, below the cell's name."""
        log.log(logging.WARNING if warns else logging.INFO, "  %s", text)

    def bar(self, total: int, what: str, start: int = 0) -> tqdm:
        """A progress bar; silent where there is no terminal, or where parallel cells or ranks share it."""
        silent = True if self.quiet or not distributed.is_first() else None  # None: unless it is a terminal
        return tqdm(total=total, initial=start, desc=f"  {what}", disable=silent, leave=False, dynamic_ncols=True)


def metrics_row(stage: str, step: int, metrics: dict[str, float]) -> dict:
    """What is kept of the metrics of a step."""
    return {"stage": stage, "step": step} | {name: round(value, 6) for name, value in metrics.items()}


class Stage(ABC):
    """One step of a run: made once, kept in the store under a key, and handed to the stages after it.

    A stage of one's own is a subclass, and a line of YAML under `stages` that names it; whatever its constructor names
    in its signature is an option there.

    Attributes:
        name: what it is called in the store, in messages and as `until=NAME`.
        version: raised by one when a change of its code changes what it makes of the same configuration.
        phase: what its time is counted as in a result: 'teacher', 'synthesis', 'split', 'distill' or 'evaluate'.
        inputs: names of the stages whose artifacts feed it; one that is not part of a run is left out.
        may_end: whether a run may end with it (`until`).
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    phase: ClassVar[str] = "evaluate"
    inputs: ClassVar[tuple[str, ...]] = ()
    may_end: ClassVar[bool] = True

    def is_part(self, cell: Cell, parts: Parts) -> bool:
        """Whether a run needs it that goes on after it."""
        return True

    def fed_by(self, cell: Cell, parts: Parts) -> tuple[str, ...]:
        """Names of the stages whose keys are in its own; `inputs`, unless that depends on the cell."""
        return self.inputs

    def content(self, cell: Cell, parts: Parts) -> dict:
        """What its key is made of, beside its name, its version and its inputs: everything of the configuration that
        can change what it makes. Here: its own options and the seed."""
        return {"options": cell.config["stages"][self.name], "seed": cell.config["seed"]}

    @abstractmethod
    def make(self, run: Run, folder: Path | None, log: Log) -> dict:
        """Do the work.

        Args:
            run: the cell, its objects, what the stages before have given (`run.given`), and `run.loop` and `run.keep`,
                by which a killed run goes on inside the stage (`dfkd.resume.loop`).
            folder: to write files into; None on all but the first of several ranks.
            log: for metrics of steps.

        Returns:
            what its meta.json should say: JSON values; `evals`, `warnings` and `seconds_by_phase` are known words.
        """

    def load(self, run: Run, artifact: Artifact) -> Any:
        """What later stages find in `run.given` under its name. May log a line about what was found."""
        return artifact.meta

    def why_alone(self, run: Run) -> str | None:
        """Of several ranks: why the first one makes it alone ('': there is little to do), or None if all share it."""
        return ""

    def result(self, run: Run, artifact: Artifact) -> dict:
        """What the result.json of a run says of it."""
        bookkeeping = ("seconds", "peak_memory_mb", "evals", "warnings", "ranks")
        return {self.name: {key: value for key, value in artifact.meta.items() if key not in bookkeeping}}

    def warnings(self, run: Run, artifact: Artifact) -> list[str]:
        """Reasons not to trust the result."""
        return [f"{self.name}: {text}" for text in artifact.meta.get("warnings", [])]


@dataclass(frozen=True)
class Planned:
    """A stage of a cell, with all that its key is made of.

    Attributes:
        stage: does the work.
        content: see `Stage.content`.
        inputs: keys of the stages that feed it, by name.
        key: under which the artifact lies in the store.
    """

    stage: Stage
    content: dict
    inputs: dict[str, str]
    key: str

    @property
    def name(self) -> str:
        return self.stage.name


def planned_stages(cell: Cell, parts: Parts) -> dict[str, Planned]:
    """The stages of a cell up to `until`, by name, in the order in which they are made. Nothing has to be made yet."""
    found: dict[str, Planned] = {}
    for stage in parts.stages:
        if stage.name == cell.config["until"] or stage.is_part(cell, parts):
            inputs = {name: found[name].key for name in stage.fed_by(cell, parts) if name in found}
            content = stage.content(cell, parts) | _own_target(cell, stage.name)
            key = cell.key(stage.name, stage.version, content, inputs)
            found[stage.name] = Planned(stage, content, inputs, key)
        if stage.name == cell.config["until"]:
            break
    return found


def _own_target(cell: Cell, name: str) -> dict:
    """What names the code of a stage of one's own: it counts, whatever the stage says of its content."""
    node = cell.config["stages"][name]
    return {} if is_shipped(node) else {"_target_": node["_target_"]}
