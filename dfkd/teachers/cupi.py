"""CUPI-domain: a compact un-transferable pyramid isolation domain (Wang et al., arXiv 2408.13161)."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd.domains import Images
from dfkd.models import Classifier, on_stages, stage_shapes
from dfkd.scenarios import Scenario
from dfkd.teachers.base import TrainedTeacher, Training
from dfkd.teachers.style import has_style, instance_statistics, require_style, restyle, without_style


class ClassMemory:
    """A running mean vector per class.

        row[y] <- momentum * row[y] + (1 - momentum) * mean of the batch's vectors of class y

    The first batch with images of a class initialises its row. The rows carry no gradients.
    """

    def __init__(self, classes: int, momentum: float = 0.9):
        self.momentum = momentum
        self.rows: Tensor | None = None
        self.known = torch.zeros(classes, dtype=torch.bool)

    @torch.no_grad()
    def update(self, values: Tensor, labels: Tensor) -> None:
        """Update the rows with vectors (B, D) and their labels (B,)."""
        values = values.float()
        if self.rows is None:
            self.rows = values.new_zeros(len(self.known), values.shape[1])
            self.known = self.known.to(values.device)
        member = F.one_hot(labels, len(self.known)).to(values.dtype)  # (B, classes)
        count = member.sum(0)
        mean = (member.T @ values) / count.clamp_min(1)[:, None]
        decay = self.momentum * (self.known & (count > 0)) + 1.0 * (count == 0)
        self.rows = decay[:, None] * self.rows + (1 - decay)[:, None] * mean
        self.known = self.known | (count > 0)

    def distance(self, values: Tensor, labels: Tensor) -> Tensor:
        """Compute the mean squared difference between vectors (B, D) and the rows of their classes, a scalar.

        Vectors of classes without a row yet are left out; the result is 0 if none remain.
        """
        if self.rows is None:
            return values.new_zeros(())
        counts = self.known[labels].to(values.dtype)
        squared = (values - self.rows[labels]).square().mean(1)
        return (squared * counts).sum() / counts.sum().clamp_min(1)


class CUPI(TrainedTeacher):
    """A teacher that is wrong on OOD images, also when restyled as ID images, and separates features by class.

    A step passes three groups through the network in one concatenated batch: ID images s; OOD images c, whose feature
    maps are instance-normalised after every stage and restyled by the paired ID images; and the same OOD images t in
    another order, unchanged. With l = CE / C, clip(u) = min(u, 1), p the penultimate features and
    kappa = `kappa` (epoch + 1/20)^0.9 (epochs counted from 0; operator precedence as in the public code):

        close set:  L = l(s) - clip(alpha l(c)) - clip(alpha l(t))
                        - clip(kappa MSE(bank_c[y_s], p_s)) + clip(kappa MSE(bank_c[y_t], p_t))
                        - clip(kappa sum_stages MSE(ID mean[y_t], mean(t))) - clip(kappa sum_stages MSE(ID std[y_t],
                        std(t)))
        open set:   L = CE(s) + (CE(c, taught label) + CE(t, taught label)) / 2

    OOD images of an open set have no class labels, so the class-wise terms are left out there, as NTL's MMD is. A bank
    has one row per class (`ClassMemory`). Only the plain network is saved, without restyling.

    Args:
        alpha: weight of the OOD losses, positive.
        kappa: base weight of the distances, at least 0 (see the formula).
        momentum: momentum of the banks, in [0, 1).
        args, kwargs: arguments of `TrainedTeacher`.

    Raises:
        ValueError: a number is out of range, or the network has no `features` and `head`.
    """

    needs_ood = True

    def __init__(self, *args: Any, alpha: float = 0.1, kappa: float = 0.1, momentum: float = 0.9, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if alpha <= 0 or kappa < 0 or not 0 <= momentum < 1:
            raise ValueError(
                f"cupi needs alpha > 0, kappa >= 0 and momentum in [0, 1), got alpha={alpha}, kappa={kappa}, "
                f"momentum={momentum}"
            )
        if not hasattr(self.network, "features") or not hasattr(self.network, "head"):
            raise ValueError("teacher=cupi compares features: its network must have features(x) and head(features)")
        self.alpha, self.kappa, self.momentum = alpha, kappa, momentum
        self.styles = torch.Generator()
        self.banks: dict[str, ClassMemory] = {}

    def check(self, scenario: Scenario) -> None:
        super().check(scenario)
        require_style("cupi", self.network, scenario.id.shape)

    def fit(self, training: Training) -> None:
        self.styles, self.banks = training.runtime.generator(training.seed, "teacher", "styles"), {}
        styled = sum(math.prod(maps[1:]) > 1 for maps in stage_shapes(training.model.net, training.model.shape))
        for name in ("features", *(f"{moment}{stage}" for stage in range(styled) for moment in ("mean", "std"))):
            self._bank(name, training.model.classes)  # created here, as a checkpoint only restores existing objects
        super().fit(training)
        self.banks = {}

    def loss(
        self, model: Classifier, id_batch: Images, ood_batch: Images | None, ood_label: int | None
    ) -> dict[str, Tensor]:
        y, y_c = id_batch.y, ood_batch.y
        sizes = [len(y), len(y_c), len(y_c)]
        order = torch.randperm(len(y_c), generator=self.styles, device=y.device)
        y_t = y_c[order]
        statistics: list[tuple[Tensor, Tensor]] = []

        def isolate(_stage: int, maps: Tensor) -> Tensor | None:
            if not has_style(maps):
                return None
            statistics.append(instance_statistics(maps))
            s, c, t = maps.split(sizes)
            return torch.cat([s, restyle(without_style(c), s[: len(c)], self.styles), t])

        with on_stages(model.net, isolate):
            images = torch.cat([id_batch.x, ood_batch.x, ood_batch.x[order]])
            features = model.net.features(model.normalize(images))
            logits = model.net.head(features).float().split(sizes)
        if ood_label is not None:
            taught = torch.full_like(y_c, ood_label)
            ood = (F.cross_entropy(logits[1], taught) + F.cross_entropy(logits[2], taught)) / 2
            return {"id": F.cross_entropy(logits[0], y), "ood": ood}

        def trap(name: str, amount: Tensor, weight: float) -> dict[str, Tensor]:
            return {name: -(weight * amount).clamp(max=1)}

        of_s, of_c, of_t = (F.cross_entropy(*pair) / model.classes for pair in zip(logits, (y, y_c, y_t), strict=True))
        terms = {"id": of_s} | trap("isolated", of_c, self.alpha) | trap("trap", of_t, self.alpha)
        weight = self.kappa * (self.epoch + 1 / 20) ** 0.9
        p_s, p_c, p_t = features.float().split(sizes)
        bank = self._bank("features", model.classes)
        terms |= trap("apart", bank.distance(p_s, y), weight)
        terms["together"] = (weight * bank.distance(p_t, y_t)).clamp(max=1)
        for name, values in zip(("mean", "std"), zip(*statistics, strict=True), strict=True):
            banks = [self._bank(f"{name}{stage}", model.classes) for stage in range(len(values))]
            distances = [b.distance(v[-len(y_t) :], y_t) for b, v in zip(banks, values, strict=True)]
            terms |= trap(name, sum(distances), weight)
            for b, v in zip(banks, values, strict=True):
                b.update(v[: len(y)], y)
        bank.update(p_c, y_c)
        return terms

    def _bank(self, name: str, classes: int) -> ClassMemory:
        return self.banks.setdefault(name, ClassMemory(classes, self.momentum))
