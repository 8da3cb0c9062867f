"""The first stage: the teacher, trained or taken from a checkpoint."""

import json
from pathlib import Path

from safetensors.torch import load_file

from dfkd.config.cell import Cell, is_shipped
from dfkd.errors import DivergedTeacher, NonFiniteLoss
from dfkd.machine.data_parallel import single_rank_reason
from dfkd.models import Teacher, broken_weights, load_weights, save_classifier
from dfkd.stages.components import Components
from dfkd.stages.stage import Log, Run, Stage
from dfkd.store.store import Artifact


class TeacherStage(Stage):
    """Trains the teacher or reads it from a checkpoint. Gives the frozen teacher (`dfkd.models.Teacher`)."""

    name, version, phase, may_end = "teacher", 1, "teacher", False

    def content(self, cell: Cell, components: Components) -> dict:
        # An ordinary teacher does not depend on the OOD domain: all shipped scenarios with its ID domain share it.
        scenario = cell.config["ntl_scenario"]
        domains = scenario if components.teacher.needs_ood or not is_shipped(scenario) else scenario["id"]
        return cell.content("teacher") | {"domains": domains, "seed": cell.config["seeds"]["teacher"]}

    def make(self, run: Run, folder: Path | None, log: Log) -> dict:
        source, components, seed = run.components.teacher, run.components, run.cell.config["seeds"]["teacher"]
        source.loop = run.loop
        with run.bar(source.log_calls, "teacher", run.log_calls) as progress:

            def report(epoch: int, metrics: dict[str, float]) -> None:
                log(epoch, metrics)
                progress.set_postfix(iacc=metrics["val/iacc"])
                progress.update()

            try:
                model = source.train(components.scenario, components.runtime, seed, report)
            except NonFiniteLoss as error:
                raise DivergedTeacher(error) from error
        weights = model.net.state_dict()
        broken = broken_weights(weights, weights)
        if broken:  # the last step broke them after its loss was still finite
            raise DivergedTeacher(f"{broken}; lower the learning rate")
        if folder is not None:
            save_classifier(model, run.cell.config["teacher"]["network"], folder, "teacher")
        return {}

    def load(self, run: Run, artifact: Artifact) -> Teacher:
        folder, network = artifact.path, run.components.teacher.network
        about = json.loads((folder / "teacher.json").read_text())
        load_weights(network, load_file(folder / "teacher.safetensors"), str(folder))
        teacher = Teacher(network, tuple(about["shape"]), about["classes"], about["mean"], about["std"])
        return run.components.runtime.to_device(teacher)

    def single_rank_reason(self, run: Run) -> str | None:
        source = run.components.teacher
        if not source.is_trained:
            return ""
        if not source.mean_loss:
            return "its loss looks at a batch as a whole"
        images = min(source.recipe.batch_size, len(run.components.scenario.id.train))
        return single_rank_reason(source.network, images, run.components.runtime.device)

    def result(self, run: Run, artifact: Artifact) -> dict:
        return {}
