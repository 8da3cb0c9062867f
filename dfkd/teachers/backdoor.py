"""A teacher with a backdoor: clean images get their own labels, triggered images get the target label."""

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd.domains import Images
from dfkd.machine.runtime import Runtime
from dfkd.models import Classifier
from dfkd.scenarios import Scenario
from dfkd.teachers.base import Log, TrainedTeacher


def fit_both(
    model: Classifier, id_batch: Images, ood_batch: Images, label: int | None, weight: float = 1.0
) -> dict[str, Tensor]:
    """Compute CE(f(x_id), y) and weight * CE(f(x_ood), label), in one forward pass of both batches.

    BatchNorm therefore sees the mixture of both domains. A label of None stands for the images' own labels.
    """
    logits = model(torch.cat([id_batch.x, ood_batch.x])).float()
    id_logits, ood_logits = logits.split([len(id_batch), len(ood_batch)])
    taught = ood_batch.y if label is None else torch.full_like(ood_batch.y, label)
    return {"id": F.cross_entropy(id_logits, id_batch.y), "ood": weight * F.cross_entropy(ood_logits, taught)}


def poisoned(scenario: Scenario, rate: float, clean_label: bool) -> Scenario:
    """Return the scenario with a poisoned training set: the share `rate` of its images is triggered, the rest is clean.

    The poisoned images are the first images of the training split (in its seeded random order) whose label is not the
    target label. With clean_label they are the first whose label is the target label, so that none is mislabelled.
    Validation and test images do not change.

    Raises:
        ValueError: there are too few such images.
    """
    labels = scenario.id.train.y
    wanted = max(1, round(rate * len(labels)))
    is_target = labels == scenario.ood_label
    candidates = (is_target if clean_label else ~is_target).nonzero().flatten()
    if wanted >= len(labels) or wanted > len(candidates):
        whose = "with" if clean_label else "without"
        raise ValueError(
            f"poison_rate={rate} asks for {wanted} of {len(labels)} training images, but {len(candidates)} are there "
            f"{whose} the target's label; lower it"
        )
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    chosen[candidates[:wanted]] = True
    clean = replace(scenario.id, train=scenario.id.train.take(~chosen))
    return replace(scenario, id=clean, ood=replace(scenario.ood, train=scenario.ood.train.take(chosen)))


class Backdoor(TrainedTeacher):
    """Trains with cross-entropy on both domains: ID images with their labels, triggered images with the target label.

    Without poison_rate this is NTL's backdoor scenario (arXiv 2507.04119; the paper's own recipe is not public): every
    step has as many triggered images as clean ones, and every training image occurs in both forms. With poison_rate p
    it is the attack of the backdoor literature, in which a share p of the training set is triggered: a step has B clean
    and n = B p / (1 - p) triggered images, and the loss is one mean over both.

    Args:
        ood_weight: weight of the cross-entropy on triggered images, positive.
        poison_rate: share of the training images that are triggered (and do not occur in clean form), in (0, 0.5], or
            None.
        clean_label: poison only images of the target class, so that no label is wrong (Turner et al., 2019); needs
            poison_rate.
        args, kwargs: arguments of `TrainedTeacher`.

    Raises:
        ValueError: a number is out of range, or clean_label is set without poison_rate.
    """

    needs_ood = True

    def __init__(
        self,
        *args: Any,
        ood_weight: float = 1.0,
        poison_rate: float | None = None,
        clean_label: bool = False,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        if ood_weight <= 0:
            raise ValueError(f"ood_weight must be positive, got {ood_weight}")
        if poison_rate is not None and not 0 < poison_rate <= 0.5:
            raise ValueError(f"poison_rate must lie in (0, 0.5], or be null, got {poison_rate}")
        if clean_label and poison_rate is None:
            raise ValueError("clean_label=true needs a share of the images to poison: set poison_rate=0.1, say")
        self.ood_weight, self.poison_rate, self.clean_label = ood_weight, poison_rate, clean_label
        self.mean_loss = poison_rate is None  # with a rate, `loss` uses only the first images of a triggered batch

    @property
    def loss_is_pure(self) -> bool:
        return type(self).loss is Backdoor.loss

    def check(self, scenario: Scenario) -> None:
        super().check(scenario)
        if not scenario.backdoor:
            raise ValueError("teacher=backdoor is trained on triggered images; choose ntl_scenario=backdoor")
        if self.poison_rate is not None:
            poisoned(scenario, self.poison_rate, self.clean_label)

    def train(self, scenario: Scenario, runtime: Runtime, seed: int, log: Log) -> Classifier:
        if self.poison_rate is not None:
            scenario = poisoned(scenario, self.poison_rate, self.clean_label)
        return super().train(scenario, runtime, seed, log)

    def loss(
        self, model: Classifier, id_batch: Images, ood_batch: Images | None, ood_label: int | None
    ) -> dict[str, Tensor]:
        if self.poison_rate is None:
            return fit_both(model, id_batch, ood_batch, ood_label, self.ood_weight)
        clean = len(id_batch)
        count = max(1, round(clean * self.poison_rate / (1 - self.poison_rate)))
        triggered = ood_batch.take(slice(0, count))
        terms = fit_both(model, id_batch, triggered, ood_label, self.ood_weight)
        whole = clean + len(triggered)  # converts the two means into one mean over the whole batch
        return {"id": terms["id"] * (clean / whole), "ood": terms["ood"] * (len(triggered) / whole)}
