"""Makes the stages of a cell in order; each is read from the store, or made and stored. With several ranks the first
one decides."""

import contextlib
import functools
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from dfkd.config.cell import Cell
from dfkd.config.own_code import code_digest
from dfkd.machine import distributed
from dfkd.machine.profiling import profiled
from dfkd.machine.runtime import PeakMemory
from dfkd.resume.checkpoints import Checkpoints
from dfkd.resume.state import CheckpointMismatch
from dfkd.stages.components import Components
from dfkd.stages.stage import PlannedStage, Run, metrics_row, planned_stages
from dfkd.store.store import Artifact, Store
from dfkd.tracker import Tracker

log = logging.getLogger("dfkd")
JOIN = "join"  # message of the first rank to the others: make this stage together


class Pipeline:
    """Makes the stages of one cell.

    Args:
        cell: the cell.
        components: its objects.
        tracker: gets the metrics of every stage, also of a reused one.
        siblings: cells that differ only in the seed of the student; their students may be trained together with this
            one.
        quiet: whether to hide the progress bars.

    Attributes:
        run: the state that the stages work on: `run.planned` has their keys, `run.stage_outputs` the outputs of
            finished stages.
        artifacts: {name: artifact} of the finished stages, in order.
    """

    def __init__(
        self, cell: Cell, components: Components, tracker: Tracker, siblings: Sequence[Cell] = (), quiet: bool = False
    ):
        checkpoints = Checkpoints(cell.config["runtime"].get("checkpoint_every"), components.runtime.device)
        store, planned = Store(cell.outputs / "store"), planned_stages(cell, components)
        self.run = Run(cell, components, store, siblings, quiet, checkpoints, planned=planned)
        self.tracker = tracker
        self.artifacts: dict[str, Artifact] = {}

    def check_access(self) -> None:
        """Raise Inaccessible if the operating system refuses to read or write an artifact. Call it before `make`."""
        for name, planned in self.run.planned.items():
            self.run.store.check_access(name, planned.key)

    def make(self) -> None:
        """Read every stage from the store or make it, in order. Fills `artifacts` and `run.stage_outputs`."""
        for name, planned in self.run.planned.items():
            artifact = self.artifacts[name] = self.lead(planned) if distributed.is_first() else self.follow(planned)
            if artifact.reused and distributed.is_first():
                for line in (artifact.path / "metrics.jsonl").read_text().splitlines():
                    self.tracker.log(json.loads(line))
            spent = "reused" if artifact.reused else f"{artifact.meta['seconds']:.1f} s"
            log.info("  %-9s %s %s", name, planned.key, spent)
            self.run.stage_outputs[name] = planned.stage.load(self.run, artifact)

    def lead(self, planned: PlannedStage) -> Artifact:
        """Fetch a stage on the first rank, and send its artifact to the other ranks.

        Raises:
            CheckpointMismatch: the checkpoint of the stage does not fit it; the other ranks raise it too.
        """
        reason = planned.stage.single_rank_reason(self.run) if distributed.ranks() > 1 else None
        together = distributed.ranks() > 1 and reason is None
        build = functools.partial(self.build, planned, together, f" (by one rank: {reason})" if reason else "")
        try:
            fetched = self.run.store.fetch(planned.name, planned.key, build, planned.content, planned.inputs)
            return distributed.broadcast(fetched)
        except CheckpointMismatch as error:
            distributed.broadcast(error)
            raise

    def build(self, planned: PlannedStage, together: bool, how: str, folder: Path) -> dict:
        """Make a stage on the first rank, or `together` on all; return the metadata for its meta.json.

        Args:
            how: text behind the name of the stage in the log.
        """
        log.info("  %-9s %s ...%s", planned.name, planned.key, how)
        if together:
            distributed.broadcast(JOIN)
        runtime, checkpoints = self.run.components.runtime, self.run.checkpoints
        peak = PeakMemory(runtime.device)
        watched = contextlib.nullcontext()
        if runtime.profile:
            watched = profiled(planned.name, runtime.device, self.run.cell.folder)
        with (folder / "metrics.jsonl").open("w") as file, self.resumable(planned, together), watched as between:
            checkpoints.between = between or checkpoints.between

            def write(row: dict) -> None:
                file.write(json.dumps(row) + "\n")
                self.tracker.log(row)

            def record(step: int, metrics: dict[str, float]) -> None:
                row = metrics_row(planned.name, step, metrics)
                checkpoints.rows.append(row)
                write(row)

            for row in checkpoints.rows:
                write(row)
            meta = planned.stage.make(self.run, folder, record)
            seconds = round(checkpoints.seconds / meta.get("replicas", 1), 3)
        ranks = {"ranks": distributed.ranks()} if together else {}
        return meta | {"peak_memory_mb": peak.read(), "seconds": seconds} | ranks

    def follow(self, planned: PlannedStage) -> Artifact:
        """On the other ranks: make the stage together with the first rank if it asks for that, and get the artifact.

        Raises:
            CheckpointMismatch: the checkpoint of the stage does not fit it.
        """
        message = distributed.broadcast(None)
        if message == JOIN:
            # The first rank sends the same CheckpointMismatch.
            with contextlib.suppress(CheckpointMismatch), self.resumable(planned, True):
                planned.stage.make(self.run, None, lambda step, metrics: None)
            message = distributed.broadcast(None)
        if isinstance(message, CheckpointMismatch):
            raise message
        return message

    @contextlib.contextmanager
    def resumable(self, planned: PlannedStage, together: bool) -> Iterator[None]:
        """Inside the block a stage is made; it resumes from the checkpoint of an earlier run, if there is one."""
        file, code = self.run.store.checkpoint(planned.name, planned.key), code_digest(self.run.cell.config)
        stage = self.run.checkpoints.stage(planned.name, planned.key, file, code)
        with distributed.together(together), stage:
            yield
