"""A teacher with a backdoor: clean images get their labels, triggered images get the target."""

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd.domains import Images
from dfkd.models import Classifier
from dfkd.scenarios import Scenario
from dfkd.teachers.base import TrainedTeacher


def fit_both(model: Classifier, id_batch: Images, ood_batch: Images, label: int) -> dict[str, Tensor]:
    """CE(f(x_id), y) + CE(f(x_ood), label), one concatenated forward (BatchNorm sees the mixture)."""
    logits = model(torch.cat([id_batch.x, ood_batch.x])).float()
    id_logits, ood_logits = logits.split([len(id_batch), len(ood_batch)])
    taught = torch.full_like(ood_batch.y, label)
    return {"id": F.cross_entropy(id_logits, id_batch.y), "ood": F.cross_entropy(ood_logits, taught)}


class Backdoor(TrainedTeacher):
    """Both domains are fitted: ID images with their labels, triggered ones with the target label.

    This is NTL's backdoor scenario (arXiv 2507.04119; the paper's own recipe is not public): as many triggered
    images as clean ones in every step.
    """

    needs_ood = True

    def check(self, scenario: Scenario) -> None:
        super().check(scenario)
        if not scenario.backdoor:
            raise ValueError("teacher=backdoor is trained on triggered images; choose ntl_scenario=backdoor")

    def loss(
        self, model: Classifier, id_batch: Images, ood_batch: Images | None, ood_label: int | None
    ) -> dict[str, Tensor]:
        return fit_both(model, id_batch, ood_batch, ood_label)
