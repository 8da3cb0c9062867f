"""Domains of embeddings: the vectors that an encoder makes, which a classifier of one's own takes as its input."""

from pathlib import Path

import numpy as np
import torch

from dfkd.domains.arrays import count_classes
from dfkd.domains.base import Domain, Images, carve, limited
from dfkd.domains.files import read_archive
from dfkd.domains.modality import EMBEDDINGS


def embeddings(
    path: str,
    classes: int | None = None,
    label: str | None = None,
    val_share: float = 0.1,
    split_seed: int = 0,
    limit: int | None = None,
) -> Domain:
    """A NumPy archive with x_train, y_train, x_test, y_test; x is (N, D), any real numbers; y is (N,), integer.

    A vector of D features becomes an example (D, 1, 1). Mean and std are measured for every feature on the training
    vectors; the std of a feature that never changes is 1.

    Args:
        classes: number of classes; the largest label + 1 if None.
        label: the domain's name in tables; the file's name if None.
        limit: at most this many vectors a split, a seeded choice.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not an npz archive, an array is missing, or x does not hold finite vectors of one length.
    """
    file = Path(path)
    (train, test), notes = read_archive(file, _vectors)
    if train.x.shape[1] != test.x.shape[1]:
        lengths = f"{train.x.shape[1]} and {test.x.shape[1]}"
        raise ValueError(f"{file}: training and test vectors must be of one length, got {lengths}")
    if classes is None:
        classes = count_classes(train.y, test.y, str(file))
    train, val = carve(train, val_share, split_seed)
    train, val, test = (limited(part, limit, split_seed) for part in (train, val, test))
    mean, std = _statistics(train)
    return Domain(label or file.stem, classes, train, val, test, mean, std, EMBEDDINGS, notes)


def _vectors(x: np.ndarray, name: str) -> torch.Tensor:
    """Vectors (N, D) as examples (N, D, 1, 1), float32; `name` is what messages call them."""
    if x.ndim != 2 or x.size == 0 or x.dtype.kind not in "fiu":
        raise ValueError(f"{name} holds no vectors: they must be numbers (N, D), got {x.dtype} of shape {x.shape}")
    x = x.astype(np.float32)
    if not np.isfinite(x).all():
        raise ValueError(f"{name} holds vectors with NaN or infinite numbers")
    return torch.from_numpy(x)[:, :, None, None]


def _statistics(train: Images) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of every feature."""
    std, mean = torch.std_mean(train.x.double(), (0, 2, 3), correction=0)
    return mean.tolist(), torch.where(std > 0, std, 1.0).tolist()
