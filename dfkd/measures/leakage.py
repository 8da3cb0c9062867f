"""Do synthetic images leak training images? How near they lie to training images, compared with test images.

If synthesis knew nothing of single training images, training and test images would be exchangeable: a synthetic image
would be as likely to lie near one as near the other. Distances to training images alone prove nothing, because images
of the same class are alike anyway.
"""

import torch
from torch import Tensor

from dfkd.domains import Images
from dfkd.machine.runtime import Runtime, stream_seed
from dfkd.measures.base import CHOICE_SEED
from dfkd.measures.roc import auroc, tpr_at_fpr
from dfkd.models import Classifier, watch_features

CHUNK = 500  # images whose distances to all others are in memory at once


def measure_leakage(pool: Tensor, train: Tensor, test: Tensor, permutations: int = 1000) -> dict:
    """Measure how near synthetic images lie to training and to test images, by Euclidean distance.

    Args:
        pool: synthetic images, or features of them, (P, D).
        train: of training images (M, D); the members.
        test: of test images (N, D), which no training has seen.
        permutations: number of random exchanges of training and test images, for the interval by chance.

    Returns:
        nearer_train: share of the pool whose nearest real image is a training image, in [0, 1].
        expected: the same by chance, M / (M + N).
        interval: [2.5 %, 97.5 %] quantiles of the share when "training" and "test" are exchanged at random. It is wider
            than a binomial interval, because one real image may be the nearest to many synthetic ones.
        p: share of the exchanges with at least as large a value, counting the observation as one.
        distance_train, distance_test: medians over the pool of the distance to the nearest training and test image.
        membership_auroc, membership_tpr: a membership attack whose score is the negative distance of a real image to
            the nearest synthetic one (Chen et al., CCS 2020, arXiv 1909.03935): its AUROC, and the share of training
            images that it names at 1 % false positives. By chance 0.5 and 0.01.
    """
    real = torch.cat([train, test])
    to_real, nearest, to_pool = _nearest(pool, real, len(train))
    observed = (nearest < len(train)).double().mean().item()
    by_chance = _by_chance(nearest, len(train), len(real), permutations)
    members, others = -to_pool[: len(train)], -to_pool[len(train) :]
    low, high = by_chance.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    values = {
        "nearer_train": observed,
        "expected": len(train) / len(real),
        "p": (1 + (by_chance >= observed).sum().item()) / (1 + permutations),
        "distance_train": to_real[:, 0].median().item(),
        "distance_test": to_real[:, 1].median().item(),
        "membership_auroc": auroc(members, others),
        "membership_tpr": tpr_at_fpr(members, others),
    }
    return {key: round(value, 4) for key, value in values.items()} | {"interval": [round(low, 4), round(high, 4)]}


def _nearest(pool: Tensor, real: Tensor, members: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return distances of pool (P, D) to the nearest of the first `members` and of the other real images (P, 2), the
    index of the nearest real image (P,), and the distances of real images (R, D) to the nearest in the pool (R,)."""
    real = real.double()  # in float32 the distance between equal vectors would not be zero
    to_real, nearest, to_pool = [], [], torch.full((len(real),), torch.inf, dtype=torch.float64, device=real.device)
    for part in pool.split(CHUNK):
        distance = torch.cdist(part.double(), real)
        to_real.append(torch.stack([distance[:, :members].amin(1), distance[:, members:].amin(1)], 1))
        nearest.append(distance.argmin(1))
        to_pool = torch.minimum(to_pool, distance.amin(0))
    return torch.cat(to_real).cpu(), torch.cat(nearest).cpu(), to_pool.cpu()


def _by_chance(nearest: Tensor, members: int, real: int, permutations: int) -> Tensor:
    """Return the share of `nearest` (P,) that falls on `members` of `real` images chosen at random (permutations,)."""
    counts = torch.bincount(nearest, minlength=real).double() / len(nearest)
    generator = torch.Generator().manual_seed(stream_seed(CHOICE_SEED, "permutations"))
    chosen = (torch.randperm(real, generator=generator)[:members] for _ in range(permutations))
    return torch.stack([counts[index].sum() for index in chosen])


@torch.no_grad()
def features(model: Classifier, images: Images, runtime: Runtime) -> Tensor:
    """Return the penultimate features (N, D) of images, float32, on the CPU.

    Raises:
        ValueError: the network has no last linear layer.
    """
    parts = []
    with watch_features(model.net) as seen:
        for index in torch.arange(len(images)).split(runtime.chunk):
            model.predict(images.pixels(index))
            parts.append(seen[0].cpu())
    return torch.cat(parts)
