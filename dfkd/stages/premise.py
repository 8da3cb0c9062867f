"""Whether ATEsc's premise holds for the teacher. Made only if the defense attacks images, or if a run ends with it."""

from pathlib import Path

from dfkd.config.build import number
from dfkd.config.cell import Cell
from dfkd.defenses.premise import measure_premise, premise_in_words
from dfkd.stages.components import Components
from dfkd.stages.stage import Log, Run, Stage
from dfkd.store.store import Artifact


class PremiseStage(Stage):
    """Measures for which share of ID and OOD validation images an attack changes the teacher's class
    (`dfkd.defenses.premise`), at the radii of `evaluate.premise.eps` and at the radius of the defense."""

    name, version, inputs = "premise", 3, ("teacher",)

    def is_part(self, cell: Cell, components: Components) -> bool:
        return components.defense.radius is not None

    def content(self, cell: Cell, components: Components) -> dict:
        options = cell.config["evaluate"]["premise"]
        radii = {number(eps) for eps in options["eps"]} | {components.defense.radius} - {None}
        attack = {"eps": sorted(radii), "steps": options["steps"], "images": options["images"]}
        return cell.content("ntl_scenario") | attack | {"seed": cell.config["seeds"]["teacher"]}

    def make(self, run: Run, folder: Path | None, log: Log) -> dict:
        attack, scenario, runtime = run.planned["premise"].content, run.components.scenario, run.components.runtime
        seed, eps, steps, images = (attack[key] for key in ("seed", "eps", "steps", "images"))
        return measure_premise(run.stage_outputs["teacher"], scenario, runtime, seed, eps, steps, images)

    def load(self, run: Run, artifact: Artifact) -> dict:
        words, fails = self.words(run, artifact)
        if words:
            run.say(words, warns=fails)
        return artifact.meta

    def words(self, run: Run, artifact: Artifact) -> tuple[str | None, bool]:
        """Return (a sentence for the user or None, whether the premise fails at the radius of the defense)."""
        return premise_in_words(artifact.meta, run.components.defense.radius)

    def result(self, run: Run, artifact: Artifact) -> dict:
        report = {key: artifact.meta[key] for key in ("id_confidence", "ood_confidence", "holds")}
        words, _ = self.words(run, artifact)
        return {"flip_rates": artifact.meta["flip_rates"], "premise": report | {"words": words}}

    def warnings(self, run: Run, artifact: Artifact) -> list[str]:
        words, fails = self.words(run, artifact)
        return artifact.meta["warnings"] + ([words] if fails else [])
