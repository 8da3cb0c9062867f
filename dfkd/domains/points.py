"""CAKE's two-dimensional sets (arXiv 2306.02090), as examples of shape (1, 2, 1)."""

from collections.abc import Callable

import numpy as np
import torch

from dfkd.domains.base import Domain, Images
from dfkd.domains.modality import POINTS


def _two_moons(n: int, rng: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import make_moons

    return make_moons(n, noise=0.3, random_state=rng)


def _circles(n: int, rng: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import make_circles

    return make_circles(n, factor=0.5, noise=0.05, random_state=rng)


def _grid(n: int, rng: np.random.RandomState, sigma: float, label: Callable) -> tuple[np.ndarray, np.ndarray]:
    """Draw Gaussian blobs around the points of a 3x3 grid; `label` maps the number of a blob to its class."""
    blob = rng.randint(9, size=n)
    centre = np.stack([blob // 3 - 1.0, blob % 3 - 1.0], axis=1)
    return centre + sigma * rng.randn(n, 2), label(blob)


def _checkerboard(n: int, rng: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
    return _grid(n, rng, 0.1, lambda blob: blob % 2)


def _clusters(n: int, rng: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
    return _grid(n, rng, 0.1, lambda blob: blob)


# name: (draw n points, number of classes)
SETS = {
    "two_moons": (_two_moons, 2),
    "circles": (_circles, 2),
    "checkerboard": (_checkerboard, 2),
    "clusters": (_clusters, 9),
}


def points(
    kind: str, train: int = 10_000, val: int = 5_000, test: int = 5_000, split_seed: int = 0, limit: int | None = None
) -> Domain:
    """Draw a two-dimensional set, standardised per feature with the statistics of its training points.

    The three splits are drawn independently. (In the reference implementation, seeded sets have the same points in
    validation and test.)

    Args:
        kind: two_moons, circles, checkerboard (3x3 blobs of two alternating classes), clusters (3x3 blobs, nine
            classes).
        train, val, test: number of points per split.
        split_seed: seed of the points.
        limit: at most this many points per split.

    Raises:
        ValueError: kind is unknown.
    """
    if kind not in SETS:
        raise ValueError(f"there is no 2-D set '{kind}'; choose one of {', '.join(sorted(SETS))}")
    draw, classes = SETS[kind]
    sizes = [n if limit is None else min(n, limit) for n in (train, val, test)]
    parts = [draw(n, np.random.RandomState(split_seed * 3 + i)) for i, n in enumerate(sizes)]
    mean, std = parts[0][0].mean(axis=0), parts[0][0].std(axis=0)
    images = [
        Images(torch.from_numpy((x - mean) / std).float().view(-1, 1, 2, 1), torch.from_numpy(y).long())
        for x, y in parts
    ]
    return Domain(kind, classes, *images, mean=[0.0], std=[1.0], modality=POINTS)
