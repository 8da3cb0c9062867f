"""A run: teacher -> synthesize -> split -> distill -> evaluate, every stage from the store or made once."""

import contextlib
import functools
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from dfkd import stages
from dfkd.cell import Cell
from dfkd.digest import code_digest
from dfkd.errors import NonFiniteLoss, NotTogether
from dfkd.evaluate import premise_in_words
from dfkd.graph import Stage, stage_graph
from dfkd.machine import distributed
from dfkd.machine.profiling import profiled
from dfkd.machine.sharing import why_alone, why_in_turn
from dfkd.pool import Pool
from dfkd.preflight import Parts, student_of
from dfkd.resume.state import Misfit
from dfkd.runtime import PeakMemory
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
        replicas: cells that differ in the student's seed only, whose students are trained with this one's.

    Attributes:
        graph: its stages by name, with their keys.
        artifacts: finished stages by name, in order.
        teacher: frozen, once its stage is done.
    """

    def __init__(self, cell: Cell, parts: Parts, tracker: Tracker, replicas: Sequence[Cell] = ()):
        self.cell, self.parts, self.tracker, self.replicas = cell, parts, tracker, replicas
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

        options, radii = config["evaluate"]["premise"], self.graph["premise"].content["eps"]
        make = functools.partial(stages.make_premise, parts, self.teacher, radii, options, seeds["teacher"])
        made = self.stage("premise", lambda *_: make())
        words, fails = premise_in_words(made.meta, parts.defense.radius)
        if words:
            log.log(logging.WARNING if fails else logging.INFO, "  %s", words)
        if config["until"] == "premise":
            return

        pool = None if parts.synthesizer.online else self.finished_pool()
        checks = {key: config["evaluate"][key] for key in ("checks", "images")}
        network = config["student"]["network"]
        make = functools.partial(stages.make_student, parts, self.teacher, pool, network, seeds, checks)
        if self.replicas and not self.store.find("student", self.graph["student"].key):
            reason = why_in_turn(parts)
            if reason is None:
                make = functools.partial(self.make_students, pool, network, checks)
            how = f"in turn ({reason})" if reason else "in one program"
            log.info("  %d students to train, %s", 1 + len(self.replicas), how)
        self.stage("student", make, why_alone("student", parts, pool))

    def make_students(self, pool: Pool, network: dict, checks: dict, folder: Path, log: stages.Log) -> dict:
        """Make the students of all replicas, and put the others' where their own runs find them."""
        cells = (self.cell, *self.replicas)
        students = [self.parts.student, *(student_of(cell, self.parts) for cell in self.replicas)]

        def keep(place: int, rows: list[dict], save: Callable[[Path], dict]) -> None:
            stage = stage_graph(cells[place], self.parts)["student"]

            def build(folder: Path) -> dict:
                (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
                return save(folder)

            self.store.fetch("student", stage.key, build, stage.content, stage.inputs)

        seeds = [cell.config["seeds"] for cell in cells]
        try:
            return stages.make_students(
                self.parts, students, self.teacher, pool, network, seeds, checks, keep, folder, log
            )
        except NonFiniteLoss as error:
            raise NotTogether(str(error)) from error

    def finished_pool(self) -> Pool:
        """The pool of an offline synthesizer, split."""
        parts, seed = self.parts, self.cell.config["seeds"]["synthesis"]
        make = functools.partial(stages.make_pool, parts, self.teacher, seed)
        made = self.stage("pool", make, why_alone("pool", parts))
        pool = Pool.load(made.path / "pool.safetensors").place(parts.runtime.device, parts.runtime.home)
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
                    row = stages.row(name, step, metrics)
                    checkpoints.rows.append(row)
                    write(row)

                for row in checkpoints.rows:
                    write(row)
                meta = make(folder, record)
                seconds = round(checkpoints.seconds / meta.get("replicas", 1), 3)
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
