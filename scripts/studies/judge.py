"""The judge of studies 7 and 8: a probe that was trained on real ID and OOD images, on a teacher's features."""

from dataclasses import dataclass
from pathlib import Path

import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file
from torch import Tensor

from dfkd.config.cell import Cell
from dfkd.defenses import Oracle
from dfkd.domains import Domain
from dfkd.measures import roc
from dfkd.models import Teacher, load_classifier
from dfkd.report.runs import Run
from dfkd.stages.prepare import prepare
from dfkd.store.store import Store


@dataclass
class Bench:
    """What a finished cell of `defense=observe` was made of.

    Attributes:
        teacher: its frozen teacher.
        id, ood: the domains.
        judge: the criterion, which is trained when it is first asked.
        samples: {'all', 'fragile' (judged ID), 'robust' (judged OOD)}: up to 64 synthetic images each, float.
    """

    teacher: Teacher
    id: Domain
    ood: Domain
    judge: Oracle
    samples: dict[str, Tensor]

    def log_odds(self, images: Tensor) -> Tensor:
        """Return the judge's log-odds for ID (B,) of images (B, C, H, W)."""
        return self.judge.score(self.teacher, images, self.teacher.predict(images))

    def real(self, count: int) -> tuple[Tensor, Tensor]:
        """Return real test images of both domains, which the judge has not seen, and which of them are ID."""
        parts = [domain.test.pixels(slice(0, count)) for domain in (self.id, self.ood)]
        return torch.cat(parts), torch.cat([torch.full((len(part),), i == 0) for i, part in enumerate(parts)])

    def auroc(self) -> float:
        """Return how well the judge tells real test images apart, in [0, 1]."""
        images, is_id = self.real(500)
        return auroc(self.log_odds(images), is_id)


def bench(run: Run) -> Bench:
    """Build the objects of a finished cell again, with its trained teacher."""
    components = prepare(Cell(OmegaConf.create(run.config)))
    teacher = Teacher.of(load_classifier(artifact(run, "teacher") / "teacher.json"))
    scenario = components.scenario
    return Bench(teacher, scenario.id, scenario.ood, components.defense.criterion, samples(run))


def samples(run: Run) -> dict[str, Tensor]:
    """Return the synthetic images that a finished cell keeps with its student (see `Bench`)."""
    return load_file(artifact(run, "student") / "samples.safetensors")


def artifact(run: Run, stage: str) -> Path:
    """Return the folder of a stage of a finished cell."""
    return Store(run.folder.parents[1] / "store").root / stage / run.result["stages"][stage]["key"]


def auroc(score: Tensor, is_id: Tensor) -> float:
    """Return the share of pairs (ID, OOD) in which the ID image has the higher score; ties count half."""
    return roc.auroc(score[is_id], score[~is_id])
