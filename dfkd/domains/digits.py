"""scikit-learn's handwritten digits: 1,797 real 8x8 images, available without a download."""

import functools
import importlib.util
from pathlib import Path

import numpy as np
import torch

from dfkd.domains.base import Domain, Images, fit_images, split_validation, subsample
from dfkd.domains.training_split import alter_training


def digits(
    size: int | None = 16,
    channels: int | None = None,
    val_share: float = 0.2,
    split_seed: int = 0,
    limit: int | None = None,
    train_images: int | None = None,
    imbalance: float | None = None,
    label_noise: float | None = None,
) -> Domain:
    """Load the digits, resized. A quarter of them is the test split.

    Args:
        size: side in pixels, or None for the original 8.
        channels: 1 or 3, or None for the original 1.
        val_share: share of the remaining three quarters that goes to validation, in (0, 1).
        split_seed: seed of both splits.
        limit: at most this many images per split.
        train_images, imbalance, label_noise: see `alter_training`.

    Raises:
        ValueError: a number is out of range.
    """
    pixels, labels = scikit_digits()
    x = torch.from_numpy(pixels * (255 / 16)).round().to(torch.uint8).view(-1, 1, 8, 8)
    everything = Images(fit_images(x, size, channels), torch.from_numpy(labels).long())
    rest, test = split_validation(everything, 0.25, split_seed)
    train, val = split_validation(rest, val_share, split_seed)
    train, val, test = (subsample(part, limit, split_seed) for part in (train, val, test))
    train = alter_training(train, 10, split_seed, train_images, imbalance, label_noise)
    return Domain("digits", 10, train, val, test)


@functools.cache
def scikit_digits() -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels (1797, 64), 0 to 16, and labels (1797,) of `sklearn.datasets.load_digits`.

    Reads the file of the installed package, because importing scikit-learn takes a second.
    """
    package = importlib.util.find_spec("sklearn")
    file = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz" if package else None
    if file is None or not file.exists():
        from sklearn.datasets import load_digits

        return load_digits(return_X_y=True)
    rows = np.loadtxt(file, delimiter=",")
    return rows[:, :-1], rows[:, -1].astype(int)
