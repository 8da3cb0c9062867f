"""The accuracies of the teacher on test images, with which the numbers of every student are compared."""

from pathlib import Path

from dfkd.config.cell import Cell
from dfkd.evaluate import Examiner, chance_in_words
from dfkd.metrics import Metric, own_content
from dfkd.stages.components import Components
from dfkd.stages.stage import Log, Run, Stage
from dfkd.store.store import Artifact


class JudgementStage(Stage):
    """Measures the teacher on the test splits with `dfkd.evaluate.Examiner`. Gives {metric: value}."""

    name, version, inputs = "judgement", 1, ("teacher",)

    def content(self, cell: Cell, components: Components) -> dict:
        return cell.content("ntl_scenario") | own_content(cell.config, "of_teacher")

    def make(self, run: Run, folder: Path | None, log: Log) -> dict:
        teacher, components = run.stage_outputs["teacher"], run.components
        metrics = of_teacher(components)
        return Examiner(teacher, components.scenario, components.runtime, metrics=metrics)(teacher, "test")

    def result(self, run: Run, artifact: Artifact) -> dict:
        return {"teacher": run.stage_outputs["judgement"]}

    def load(self, run: Run, artifact: Artifact) -> dict[str, float | None]:
        for words in self.warnings(run, artifact):
            run.say(words, warns=True)
        return {metric.key: artifact.meta[metric.key] for metric in of_teacher(run.components)}

    def warnings(self, run: Run, artifact: Artifact) -> list[str]:
        id_domain, source = run.components.scenario.id, run.components.teacher
        words = chance_in_words(artifact.meta["iacc"], id_domain.test.y, id_domain.classes)
        if words is None:
            return []
        look = "its training" if source.is_trained else "teacher.mean, teacher.std and the order of the classes"
        return [f"THE TEACHER IS AT CHANCE ON ID: {words}. Its students can learn nothing from it; check {look}"]


def of_teacher(components: Components) -> list[Metric]:
    """Return the metrics that are computed for a teacher."""
    return [metric for metric in components.metrics if metric.of_teacher]
