"""Domains of embeddings: vectors computed by an encoder, the inputs of a classifier on top of it."""

from pathlib import Path

import numpy as np
import torch

from dfkd.domains.arrays import count_classes
from dfkd.domains.base import Domain, Images, split_validation, subsample
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
    """Load a NumPy archive with x_train, y_train, x_test, y_test; x is (N, D), real numbers; y is (N,), integers.

    A vector of D features becomes an example (D, 1, 1). Mean and std per feature are measured on the training vectors;
    the std of a constant feature is set to 1.

    Args:
        path: the npz file.
        classes: number of classes; None means the largest label + 1.
        label: name of the domain in tables; None means the file's name.
        val_share: share of the training vectors that goes to validation, in (0, 1).
        split_seed: seed of the splits.
        limit: at most this many vectors per split, chosen at random with the seed.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is not an npz archive, an array is missing, or x is not finite vectors of one length.
    """
    file = Path(path)
    (train, test), notes = read_archive(file, _vectors)
    if train.x.shape[1] != test.x.shape[1]:
        lengths = f"{train.x.shape[1]} and {test.x.shape[1]}"
        raise ValueError(f"{file}: training and test vectors must be of one length, got {lengths}")
    if classes is None:
        classes = count_classes(train.y, test.y, str(file))
    train, val = split_validation(train, val_share, split_seed)
    train, val, test = (subsample(part, limit, split_seed) for part in (train, val, test))
    mean, std = statistics(train)
    return Domain(label or file.stem, classes, train, val, test, mean, std, EMBEDDINGS, notes)


def _vectors(x: np.ndarray, name: str) -> torch.Tensor:
    """Convert vectors (N, D) to examples (N, D, 1, 1), float32; `name` is their name in error messages."""
    if x.ndim != 2 or x.size == 0 or x.dtype.kind not in "fiu":
        raise ValueError(f"{name} holds no vectors: they must be numbers (N, D), got {x.dtype} of shape {x.shape}")
    x = x.astype(np.float32)
    if not np.isfinite(x).all():
        raise ValueError(f"{name} holds vectors with NaN or infinite numbers")
    return torch.from_numpy(x)[:, :, None, None]


def statistics(train: Images) -> tuple[list[float], list[float]]:
    """Compute mean and standard deviation per feature."""
    std, mean = torch.std_mean(train.x.double(), (0, 2, 3), correction=0)
    return mean.tolist(), torch.where(std > 0, std, 1.0).tolist()
