"""Whether the teacher is trapped, from the teacher alone. Made if a run ends with it, or if it is asked for."""

import dataclasses
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from dfkd.audit import Effort, Looks, look
from dfkd.config.cell import Cell
from dfkd.stages.parts import Parts
from dfkd.stages.stage import Log, Run, Stage
from dfkd.store.store import Artifact


class AuditStage(Stage):
    """Looks at the teacher (`dfkd.audit.look`). The looks are stored; the verdict is made of them whenever it is needed.

    Args:
        always: audit the teacher also in runs that go on to a student.
        effort: options of `dfkd.audit.Effort`.
    """

    name, version, inputs = "audit", 1, ("teacher",)

    def __init__(self, always: bool = False, **effort: Any):
        self.always, self.effort = always, Effort(**effort)

    def is_part(self, cell: Cell, parts: Parts) -> bool:
        return self.always

    def content(self, cell: Cell, parts: Parts) -> dict:
        runtime = cell.config["runtime"]
        effort = dataclasses.asdict(self.effort)
        return {"effort": effort, "seed": cell.config["seeds"]["synthesis"], "precision": runtime["precision"]}

    def make(self, run: Run, folder: Path | None, log: Log) -> dict:
        teacher, runtime = run.given["teacher"], run.parts.runtime
        before = teacher.evals.copy()
        with run.bar(8, "audit") as progress, teacher.counted_as("audit"):
            looks = look(
                teacher,
                runtime,
                run.cell.config["seeds"]["synthesis"],
                self.effort,
                report=lambda name: progress.update(),
            )
        save_file(looks.pictures, folder / "pictures.safetensors")
        told = {key: value for key, value in vars(looks).items() if key != "pictures"}
        return {"looks": told, "evals": dict(teacher.evals - before)}

    def load(self, run: Run, artifact: Artifact) -> Looks:
        return Looks(**artifact.meta["looks"])

    def result(self, run: Run, artifact: Artifact) -> dict:
        return {"audit": artifact.meta["looks"]}
