"""A teacher with a backdoor: clean images get their labels, triggered images get the target."""

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
    model: Classifier, id_batch: Images, ood_batch: Images, label: int, weight: float = 1.0
) -> dict[str, Tensor]:
    """CE(f(x_id), y) + weight * CE(f(x_ood), label), one concatenated forward (BatchNorm sees the mixture)."""
    logits = model(torch.cat([id_batch.x, ood_batch.x])).float()
    id_logits, ood_logits = logits.split([len(id_batch), len(ood_batch)])
    taught = torch.full_like(ood_batch.y, label)
    return {"id": F.cross_entropy(id_logits, id_batch.y), "ood": weight * F.cross_entropy(ood_logits, taught)}


def poisoned(scenario: Scenario, rate: float, clean_label: bool) -> Scenario:
    """The scenario with a training set of which the share `rate` is triggered, and the rest is clean.

    The poisoned images are the first of the training split (whose order is a seeded shuffle) that do not have the
    target's label, or (clean_label) that do: then no image is mislabelled. Validation and test images stay as they are.

    Raises:
        ValueError: there are not so many such images.
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
    """Both domains are fitted: ID images with their labels, triggered ones with the target label.

    Without a poison rate this is NTL's backdoor scenario (arXiv 2507.04119; the paper's own recipe is not public): as
    many triggered images as clean ones in every step, every training image in both forms. With one, it is the attack of
    the backdoor literature, a training set of which a share p is triggered: a step on B clean images takes
    n = B p / (1 - p) triggered ones along, and the loss is one mean over both.

    Args:
        ood_weight: of the cross-entropy on triggered images.
        poison_rate: share of the training images that are triggered (and then not there in their clean form), in
            (0, 0.5], or None.
        clean_label: poison only images of the target class, so that no label is wrong (Turner et al., 2019); needs a
            poison rate.
        args, kwargs: the arguments of `TrainedTeacher`.

    Raises:
        ValueError: a number out of range.
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
        self.mean_loss = poison_rate is None  # else only the first images of a triggered batch count

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
        whole = clean + len(triggered)  # two means into one over the whole batch
        return {"id": terms["id"] * (clean / whole), "ood": terms["ood"] * (len(triggered) / whole)}
