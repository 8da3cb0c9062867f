"""A teacher with a backdoor: clean images get their labels, triggered images get the target."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfkd.domains import Images
from dfkd.models import Classifier
from dfkd.recipe import Recipe
from dfkd.scenarios import Scenario
from dfkd.teachers.base import TrainedTeacher


def fit_both(
    model: Classifier, id_batch: Images, ood_batch: Images, label: int, weight: float = 1.0
) -> dict[str, Tensor]:
    """CE(f(x_id), y) + weight * CE(f(x_ood), label), one concatenated forward (BatchNorm sees the mixture)."""
    logits = model(torch.cat([id_batch.x, ood_batch.x])).float()
    id_logits, ood_logits = logits.split([len(id_batch), len(ood_batch)])
    taught = torch.full_like(ood_batch.y, label)
    return {"id": F.cross_entropy(id_logits, id_batch.y), "ood": weight * F.cross_entropy(ood_logits, taught)}


class Backdoor(TrainedTeacher):
    """Both domains are fitted: ID images with their labels, triggered ones with the target label.

    This is NTL's backdoor scenario (arXiv 2507.04119; the paper's own recipe is not public): as many triggered
    images as clean ones in every step.

    Args:
        ood_weight: of the cross-entropy on triggered images.
    """

    needs_ood = True

    def __init__(self, network: nn.Module, recipe: Recipe, epochs: int, augment: str = "none", ood_weight: float = 1.0):
        super().__init__(network, recipe, epochs, augment)
        if ood_weight <= 0:
            raise ValueError(f"ood_weight must be positive, got {ood_weight}")
        self.ood_weight = ood_weight

    def check(self, scenario: Scenario) -> None:
        super().check(scenario)
        if not scenario.backdoor:
            raise ValueError("teacher=backdoor is trained on triggered images; choose ntl_scenario=backdoor")

    def loss(
        self, model: Classifier, id_batch: Images, ood_batch: Images | None, ood_label: int | None
    ) -> dict[str, Tensor]:
        return fit_both(model, id_batch, ood_batch, ood_label, self.ood_weight)
