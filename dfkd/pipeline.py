"""A run: teacher -> synthesize -> split -> distill -> evaluate, every stage from the store or made once."""

import contextlib
import functools
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

from dfkd import distributed, stages
from dfkd.cell import Cell
from dfkd.digest import code_digest
from dfkd.graph import Stage, stage_graph
from dfkd.pool import Pool
from dfkd.preflight import Parts
from dfkd.profiling import profiled
from dfkd.runtime import PeakMemory
from dfkd.sharing import why_alone
from dfkd.state import Misfit
from dfkd.store import Artifact, Store
from dfkd.tracker import Tracker

log = logging.getLogger("dfkd")
JOIN = "join"  # what the first rank says to the others when a stage is to be made together


class Pipeline:
    """One cell on its way through the stages; of several ranks the first one leads through them.

    Args:
        cell: names, hash and configuration.
        parts: its objects.
        tracker: sees the metrics of every stage, also of a reused one.

    Attributes:
        graph: its stages by name, with their keys.
        artifacts: finished stages by name, in order.
        teacher: frozen, once its stage is done.
    """

    def __init__(self, cell: Cell, parts: Parts, tracker: Tracker):
        self.cell, self.parts, self.tracker = cell, parts, tracker
        self.graph = stage_graph(cell, parts)
        self.store = Store(cell.outputs / "store")
        self.artifacts: dict[str, Artifact] = {}
        self.teacher = None

    def run(self) -> None:
        """Make or find every stage, or (until=premise) those of the teacher."""
        parts, config = self.parts, self.cell.config
        seeds = config["seeds"]

        network = config["teacher"]["network"]
        make = functools.partial(stages.make_teacher, parts, network, seeds["teacher"])
        made = self.stage("teacher", make, why_alone("teacher", parts))
        self.teacher = stages.load_teacher(parts, made.path)

        options = config["evaluate"]["premise"]
        made = self.stage("premise", lambda *_: stages.make_premise(parts, self.teacher, options, seeds["teacher"]))
        if made.meta["words"]:
            log.log(logging.INFO if all(made.meta["holds"]) else logging.WARNING, "  %s", made.meta["words"])
        if config["until"] == "premise":
            return

        pool = None if parts.synthesizer.online else self.finished_pool()
        checks = {key: config["evaluate"][key] for key in ("checks", "images")}
        network = config["student"]["network"]
        make = functools.partial(stages.make_student, parts, self.teacher, pool, network, seeds, checks)
        self.stage("student", make, why_alone("student", parts, pool))

    def finished_pool(self) -> Pool:
        """The pool of an offline synthesizer, split."""
        parts, seed = self.parts, self.cell.config["seeds"]["synthesis"]
        make = functools.partial(stages.make_pool, parts, self.teacher, seed)
        made = self.stage("pool", make, why_alone("pool", parts))
        pool = Pool.load(made.path / "pool.safetensors").to(parts.runtime.device)
        made = self.stage("split", lambda to, _: stages.make_split(parts, self.teacher, pool, seed, to))
        pool.split = stages.load_split(made.path, parts.runtime.device)
        return pool.keep(parts.student.keep)

    def stage(self, name: str, make: Callable[..., dict], alone: str | None = "") -> Artifact:
        """Fetch a stage from the store, or make it.

        Args:
            make: called with the folder to write into and a function to log (step, metrics) with. Of several ranks,
                with None for the folder on all but the first.
            alone: why the first rank alone makes it ('': there is nothing to share), or None if all do.
        """
        stage = self.graph[name]
        artifact = self.artifacts[name] = (
            self.lead(stage, make, alone) if distributed.is_first() else self.follow(stage, make)
        )
        if artifact.reused and distributed.is_first():
            for line in (artifact.path / "metrics.jsonl").read_text().splitlines():
                self.tracker.log(json.loads(line))
        log.info("  %-8s %s %s", name, stage.key, "reused" if artifact.reused else f"{artifact.meta['seconds']:.1f} s")
        return artifact

    def lead(self, stage: Stage, make: Callable[..., dict], alone: str | None) -> Artifact:
        """What the first rank does for a stage."""
        name, key, together = stage.name, stage.key, distributed.ranks() > 1 and alone is None

        def build(folder: Path) -> dict:
            log.info("  %-8s %s ...%s", name, key, f" (by one rank: {alone})" if alone else "")
            runtime = self.parts.runtime
            peak, checkpoints = PeakMemory(runtime.device), runtime.checkpoints
            if together:
                distributed.broadcast(JOIN)
            watched = profiled(name, runtime.device, self.cell.folder) if runtime.profile else contextlib.nullcontext()
            with (folder / "metrics.jsonl").open("w") as file, self.resumable(stage, together), watched as between:
                checkpoints.between = between or checkpoints.between

                def write(row: dict) -> None:
                    file.write(json.dumps(row) + "\n")
                    self.tracker.log(row)

                def record(step: int, metrics: dict[str, float]) -> None:
                    row = {"stage": name, "step": step} | {k: round(v, 6) for k, v in metrics.items()}
                    checkpoints.rows.append(row)
                    write(row)

                for row in checkpoints.rows:
                    write(row)
                meta = make(folder, record)
                seconds = round(checkpoints.seconds, 3)
            ranks = {"ranks": distributed.ranks()} if together else {}
            return meta | {"peak_memory_mb": peak.read(), "seconds": seconds} | ranks

        try:
            return distributed.broadcast(self.store.fetch(name, key, build, stage.content, stage.inputs))
        except Misfit as error:
            distributed.broadcast(error)
            raise

    def follow(self, stage: Stage, make: Callable[..., dict]) -> Artifact:
        """What the other ranks do for a stage: what the first one says."""
        said = distributed.broadcast(None)
        if said == JOIN:
            with contextlib.suppress(Misfit), self.resumable(stage, True):  # the first says so, too
                make(None, lambda step, metrics: None)
            said = distributed.broadcast(None)
        if isinstance(said, Misfit):
            raise said
        return said

    @contextlib.contextmanager
    def resumable(self, stage: Stage, together: bool) -> Iterator[None]:
        """Inside the block a stage is made, from where an earlier run was stopped."""
        file, code = self.store.checkpoint(stage.name, stage.key), code_digest(self.cell.config)
        with distributed.together(together), self.parts.runtime.checkpoints.stage(stage.name, stage.key, file, code):
            yield
