"""The pool of an offline synthesizer: all of its images with the teacher's logits, made before a student is trained."""

import itertools
from pathlib import Path

import torch
from torch import Tensor

from dfkd.config.cell import Cell
from dfkd.machine import distributed
from dfkd.machine.runtime import seeded
from dfkd.models import Teacher
from dfkd.pool import Pool, Split, Stack
from dfkd.stages.components import Components
from dfkd.stages.stage import Log, Run, Stage
from dfkd.store.store import Artifact
from dfkd.synthesizers import Synthesizer, Synthetic
from dfkd.training.meter import Meter


def synthesis_content(cell: Cell) -> dict:
    """Return the part of the configuration that decides the images: without the student, so students share a pool."""
    return cell.content("synthesizer", "prior", "noise") | {"seed": cell.config["seeds"]["synthesis"]}


class PoolStage(Stage):
    """Makes the pool (`dfkd.pool.Pool`); all of its images are fragile until the split."""

    name, version, phase, inputs = "pool", 2, "synthesis", ("teacher",)

    def is_part(self, cell: Cell, components: Components) -> bool:
        return not components.synthesizer.online

    def content(self, cell: Cell, components: Components) -> dict:
        return synthesis_content(cell)

    def make(self, run: Run, folder: Path | None, log: Log) -> dict:
        synthesizer, runtime, teacher = run.components.synthesizer, run.components.runtime, run.stage_outputs["teacher"]
        seed, meter, before = run.cell.config["seeds"]["synthesis"], Meter(), teacher.evals.copy()
        synthesizer.loop = run.loop
        synthesizer.start(runtime, seed)
        images = Stack(runtime.pool_device)
        columns: dict[str, list[Tensor]] = {}
        own_logits: list[Tensor] = []  # logits that the synthesizer returns with the images
        logits: list[Tensor] = []
        warnings: list[str] = []
        run.register(teacher=teacher, synthesizer=synthesizer, before=before, meter=meter)
        run.register(images=images, columns=columns, own_logits=own_logits, logits=logits, warnings=warnings)
        with seeded(seed, "synthesis"):
            todo = run.loop("round", synthesizer.rounds, synthesizer.rounds_per_call * distributed.team_size())
            if todo.start == 0:
                with distributed.alone():
                    warnings += synthesizer.try_out(teacher)
                for text in warnings:
                    run.say(text, warns=True)
            with run.bar(synthesizer.rounds, "synthesis", todo.start) as progress:
                for first in todo:
                    for rounds, batch in synthesize_on_ranks(synthesizer, first, teacher):
                        images.add(batch.images, len(batch.images) // len(rounds) * synthesizer.rounds)
                        own_logits += [] if batch.logits is None else [batch.logits]
                        for name, column in batch.columns.items():
                            columns.setdefault(name, []).append(column)
                        meter.add(batch.metrics)
                        metrics = meter.read()
                        log(rounds[-1], metrics)
                        progress.set_postfix({name: f"{value:.3g}" for name, value in list(metrics.items())[-3:]})
                        progress.update(len(rounds))
        if folder is None:
            return {}
        pool = Pool(images=images.tensor())
        with teacher.counted_as("distill"), distributed.alone():
            for i in run.loop("image", 0 if own_logits else len(pool), runtime.chunk):
                logits.append(teacher.predict(pool.pixels(slice(i, i + runtime.chunk))).float())
        pool.logits = torch.cat(own_logits or logits)
        pool.split = Split.everything(pool.images)
        pool.columns = {name: torch.cat(parts) for name, parts in columns.items()}
        pool.save(folder / "pool.safetensors")
        labels = pool.logits.argmax(1).bincount(minlength=teacher.classes).tolist()
        return {"images": len(pool), "labels": labels, "evals": dict(teacher.evals - before), "warnings": warnings}

    def load(self, run: Run, artifact: Artifact) -> Pool:
        runtime = run.components.runtime
        return Pool.load(artifact.path / "pool.safetensors").to(runtime.device, runtime.pool_device)

    def single_rank_reason(self, run: Run) -> str | None:
        synthesizer = run.components.synthesizer
        if synthesizer.rounds <= synthesizer.rounds_per_call:
            return ""
        return None if synthesizer.independent else "its rounds depend on each other"

    def result(self, run: Run, artifact: Artifact) -> dict:
        return {"pool_labels": artifact.meta["labels"]}


def synthesize_on_ranks(synthesizer: Synthesizer, first: int, teacher: Teacher) -> list[tuple[range, Synthetic]]:
    """Make the images of the next `synthesizer.rounds_per_call` rounds on each rank of the team, from round `first` on.

    Which rounds are made in one call does not depend on the number of ranks, so the images are the same to the last
    bit. The teacher evaluations of all ranks are counted on the first one.

    Returns:
        [(rounds, images)] in order, on the first rank; an empty list on the others.
    """
    team, device = distributed.team_size(), synthesizer.runtime.device
    bounds = [first + i * synthesizer.rounds_per_call for i in range(team + 1)]
    todo = [range(a, min(b, synthesizer.rounds)) for a, b in itertools.pairwise(bounds)]
    own_rounds, before, batch = todo[distributed.rank() % team], teacher.evals.copy(), None
    with teacher.counted_as("synthesis"), distributed.alone():
        if own_rounds:  # at the end there may be fewer rounds than ranks
            batch = synthesizer.synthesize(own_rounds, teacher).to("cpu" if team > 1 else device)
    results = distributed.gather((batch, teacher.evals - before))
    for _, spent in results[1:]:
        teacher.evals.update(spent)
    return [(rounds, batch.to(device)) for rounds, (batch, _) in zip(todo, results, strict=False) if rounds]
