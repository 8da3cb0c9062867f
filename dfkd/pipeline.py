"""A run: teacher -> synthesize -> split -> distill -> evaluate, every stage from the store or made once."""

import json
import logging
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from dfkd import stages
from dfkd.cell import Cell
from dfkd.checkpoints import code_digest
from dfkd.graph import stage_graph
from dfkd.pool import Pool
from dfkd.preflight import Parts
from dfkd.profiling import profiled
from dfkd.runtime import PeakMemory
from dfkd.store import Artifact, Store
from dfkd.tracker import Tracker

log = logging.getLogger("dfkd")


class Pipeline:
    """One cell on its way through the stages.

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
        made = self.stage("teacher", lambda *to: stages.make_teacher(parts, network, seeds["teacher"], *to))
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
        self.stage("student", lambda *to: stages.make_student(parts, self.teacher, pool, network, seeds, checks, *to))

    def finished_pool(self) -> Pool:
        """The pool of an offline synthesizer, split."""
        parts, seed = self.parts, self.cell.config["seeds"]["synthesis"]
        made = self.stage("pool", lambda *to: stages.make_pool(parts, self.teacher, seed, *to))
        pool = Pool.load(made.path / "pool.safetensors").to(parts.runtime.device)
        made = self.stage("split", lambda to, _: stages.make_split(parts, self.teacher, pool, seed, to))
        pool.split = stages.load_split(made.path, parts.runtime.device)
        return pool.keep(parts.student.keep)

    def stage(self, name: str, make: Callable[..., dict]) -> Artifact:
        """Fetch a stage from the store, or make it.

        Args:
            make: called with the folder to write into and a function to log (step, metrics) with.
        """
        stage = self.graph[name]
        key = stage.key

        def build(folder: Path) -> dict:
            log.info("  %-8s %s ...", name, key)
            runtime = self.parts.runtime
            peak, checkpoints = PeakMemory(runtime.device), runtime.checkpoints
            resumable = checkpoints.stage(name, key, self.store.checkpoint(name, key), code_digest(self.cell.config))
            look = profiled(name, runtime.device, self.cell.folder) if runtime.profile else nullcontext()
            with (folder / "metrics.jsonl").open("w") as file, resumable, look as between:
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
            return meta | {"peak_memory_mb": peak.read(), "seconds": seconds}

        artifact = self.artifacts[name] = self.store.fetch(name, key, build, stage.content, stage.inputs)
        if artifact.reused:
            for line in (artifact.path / "metrics.jsonl").read_text().splitlines():
                self.tracker.log(json.loads(line))
        log.info("  %-8s %s %s", name, key, "reused" if artifact.reused else f"{artifact.meta['seconds']:.1f} s")
        return artifact
