"""The stage in which the defense splits a finished pool into fragile and robust images."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dfkd.config.cell import Cell, is_shipped
from dfkd.pool import Split
from dfkd.stages.audit import tell_defense
from dfkd.stages.components import Components
from dfkd.stages.stage import Log, Run, Stage
from dfkd.store.store import Artifact

BATCH_SIZE = 500  # images per batch; not runtime.chunk, since the batch size decides which random numbers an image gets


class SplitStage(Stage):
    """Makes the split (`dfkd.pool.Split`); `load` also sets it as the split of the pool."""

    name, version, phase = "split", 4, "split"

    def is_part(self, cell: Cell, components: Components) -> bool:
        return not components.synthesizer.online

    def fed_by(self, cell: Cell, components: Components) -> tuple[str, ...]:
        return ("pool", "audit") if components.defense.needs_audit else ("pool",)

    def content(self, cell: Cell, components: Components) -> dict:
        # The split of a shipped defense with a criterion depends on the criterion only, so other losses share it.
        defense = cell.config["defense"]
        decides = defense.get("criterion", defense) if is_shipped(defense) else defense
        content = {"criterion": decides, "seed": cell.config["seeds"]["synthesis"]}
        # The keys of an ordinary teacher and its pool do not contain the OOD domain.
        if components.defense.uses_real_data:
            content |= cell.content("ntl_scenario")
        return content

    def make(self, run: Run, folder: Path | None, log: Log) -> dict:
        teacher, pool, defense = run.stage_outputs["teacher"], run.stage_outputs["pool"], run.components.defense
        tell_defense(run)
        defense.start(run.components.runtime)
        before, seed = teacher.evals.copy(), run.cell.config["seeds"]["synthesis"]
        generator = run.components.runtime.generator(seed, "split")
        splits: dict[str, list[Tensor]] = {"fragile": [], "score": []}
        run.register(teacher=teacher, defense=defense, generator=generator, before=before, splits=splits)
        todo = run.loop("image", len(pool), BATCH_SIZE)
        with run.bar(len(pool), "split", todo.start) as progress:
            for first in todo:
                part = slice(first, first + BATCH_SIZE)
                images = pool.pixels(part)
                split = defense.split(teacher, images, pool.logits[part], generator)
                splits["fragile"].append(split.fragile)
                splits["score"].append(split.score)
                progress.update(len(images))
        save_file({name: torch.cat(values).cpu() for name, values in splits.items()}, folder / "split.safetensors")
        return {"evals": dict(teacher.evals - before), "warnings": defense.warnings()}

    def load(self, run: Run, artifact: Artifact) -> Split:
        tensors = load_file(artifact.path / "split.safetensors", str(run.components.runtime.device))
        run.stage_outputs["pool"].split = split = Split(tensors["fragile"], tensors["score"])
        return split

    def result(self, run: Run, artifact: Artifact) -> dict:
        return {}
