"""Whether the teacher is trapped, from the teacher alone. Made if a run ends with it, or if it is asked for."""

import dataclasses
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from dfkd.audit import LOOKS, Effort, Looks, headline, judge, look, page
from dfkd.config.cell import Cell
from dfkd.stages.components import Components
from dfkd.stages.stage import Log, Run, Stage
from dfkd.store.store import Artifact

PAGE = "audit.html"


class AuditStage(Stage):
    """Looks at the teacher (`dfkd.audit.look`), and makes a verdict and a page of it.

    The looks are stored. The verdict and the page are made of them whenever a run needs them, so that a better model of
    the verdict asks for no new looks.

    Args:
        always: audit the teacher also in runs that go on to a student.
        effort: options of `dfkd.audit.Effort`.
    """

    name, version, inputs = "audit", 3, ("teacher",)

    def __init__(self, always: bool = False, **effort: Any):
        self.always, self.effort = always, Effort(**effort)

    def is_part(self, cell: Cell, components: Components) -> bool:
        return self.always or components.defense.needs_audit

    def content(self, cell: Cell, components: Components) -> dict:
        precision, seed = cell.config["runtime"]["precision"], cell.config["seeds"]["synthesis"]
        return {"effort": dataclasses.asdict(self.effort), "seed": seed, "precision": precision}

    def make(self, run: Run, folder: Path | None, log: Log) -> dict:
        teacher, seed = run.stage_outputs["teacher"], run.cell.config["seeds"]["synthesis"]
        before = teacher.evals["audit"]
        with run.bar(len(LOOKS), "audit") as progress, teacher.counted_as("audit"):
            looks = look(teacher, run.components.runtime, seed, self.effort, lambda *_: progress.update())
        save_file(looks.pictures, folder / "pictures.safetensors")
        return {"looks": looks.to_json(), "images_shown": teacher.evals["audit"] - before}

    def evals(self, run: Run, artifact: Artifact) -> dict[str, int]:
        """A result counts what a distillation costs: an audit that its defense does not need is no part of that."""
        return {"split": artifact.meta["images_shown"]} if run.components.defense.needs_audit else {}

    def load(self, run: Run, artifact: Artifact) -> Looks:
        looks = Looks(**artifact.meta["looks"])
        run.say(headline(judge(looks)))
        return looks

    def result(self, run: Run, artifact: Artifact) -> dict:
        looks = run.stage_outputs["audit"]
        verdict = judge(looks)
        pictures = load_file(artifact.path / "pictures.safetensors")
        text = page(run.cell.name, dataclasses.replace(looks, pictures=pictures), verdict)
        (run.cell.folder / PAGE).write_text(text, encoding="utf-8")
        return {"audit": verdict.to_json() | {"looks": looks.values, "images_shown": artifact.meta["images_shown"]}}


def tell_defense(run: Run) -> None:
    """Let the defense know what the audit saw, if it needs to."""
    if run.components.defense.needs_audit:
        run.components.defense.heed(run.stage_outputs["audit"])
