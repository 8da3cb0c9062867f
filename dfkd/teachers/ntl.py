"""Non-transferable learning (Wang et al., ICLR 2022, arXiv 2106.06916)."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd.domains import Images
from dfkd.models import Classifier
from dfkd.teachers.backdoor import fit_both
from dfkd.teachers.base import TrainedTeacher


def mmd(x: Tensor, y: Tensor, bandwidths: tuple[float, ...] = (1, 2, 4, 8, 16), scale: float = 4.0) -> Tensor:
    """Compute the squared maximum mean discrepancy with a sum of Gaussian kernels, as NTL does.

        mean_ij k(x_i, x_j) + mean_ij k(y_i, y_j) - 2 mean_ij k(x_i, y_j),  k(a, b) = sum_w exp(-||a - b||^2 / (w d)),

    d = mean off-diagonal squared distance over the joint batch (detached) / `scale`. The means include i = j, so that
    two batches of the same distribution give a small positive value.

    Args:
        x, y: features (n, D) and (m, D).

    Returns:
        a scalar, 0 if x equals y, at most 2 * len(bandwidths).
    """
    joint = torch.cat([x, y]).float()
    squared = torch.cdist(joint, joint).square()
    count = len(joint)
    unit = squared.detach().sum() / (count * count - count) / scale
    kernel = sum(torch.exp(-squared / (unit * w).clamp_min(1e-12)) for w in bandwidths)
    n = len(x)
    return kernel[:n, :n].mean() + kernel[n:, n:].mean() - 2 * kernel[:n, n:].mean()


class NTL(TrainedTeacher):
    """A teacher that is right on the ID domain and deliberately wrong on the OOD domain.

    Close set:  L = l(ID) - min(alpha * l(OOD), 1) * min(beta * MMD(features ID, features OOD), 1),  l = CE / C.
    Open set:   L = CE(ID) + CE(OOD, taught label): the OOD domain becomes one class, predicted with confidence.

    The public code writes l as a KL divergence with a mean over batch and classes, which equals CE / C. Both clips act
    on the batch's scalar, so a term above its clip has no gradient. ID and OOD images pass the network in one
    concatenated batch. BatchNorm statistics are therefore those of the mixture, and a BN prior leads synthesis to the
    OOD domain. Features are the inputs of `head`.

    Args:
        alpha: weight of the OOD loss, at least 0. The usual value is 0.1. The larger it is, the stronger the trap (the
            OOD domain collapses into one confident class).
        beta: weight of the MMD, at least 0.
        bandwidths: factors w of the kernels' widths, positive.
        args, kwargs: arguments of `TrainedTeacher`.

    Raises:
        ValueError: a number is out of range, or the network has no `features` and `head`.
    """

    needs_ood = True

    def __init__(
        self,
        *args: Any,
        alpha: float = 0.1,
        beta: float = 0.1,
        bandwidths: tuple[float, ...] = (1, 2, 4, 8, 16),
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        if alpha < 0 or beta < 0 or not bandwidths or min(bandwidths) <= 0:
            raise ValueError(
                f"ntl needs alpha >= 0, beta >= 0 and positive bandwidths, got alpha={alpha}, beta={beta}, "
                f"bandwidths={list(bandwidths)}"
            )
        if not hasattr(self.network, "features") or not hasattr(self.network, "head"):
            raise ValueError("teacher=ntl compares features: its network must have features(x) and head(features)")
        self.alpha, self.beta, self.bandwidths = alpha, beta, tuple(bandwidths)

    def loss(
        self, model: Classifier, id_batch: Images, ood_batch: Images | None, ood_label: int | None
    ) -> dict[str, Tensor]:
        if ood_label is not None:
            return fit_both(model, id_batch, ood_batch, ood_label)
        features = model.net.features(model.normalize(torch.cat([id_batch.x, ood_batch.x])))
        logits = model.net.head(features).float()
        n, classes = len(id_batch), logits.shape[1]
        id_loss = F.cross_entropy(logits[:n], id_batch.y) / classes
        ood_loss = F.cross_entropy(logits[n:], ood_batch.y) / classes
        distance = mmd(features[:n], features[n:], self.bandwidths)
        trap = (self.alpha * ood_loss).clamp(max=1) * (self.beta * distance).clamp(max=1)
        return {"id": id_loss, "trap": -trap}
