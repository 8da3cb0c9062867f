"""Domains from torchvision's data sets."""

import difflib
from pathlib import Path

import numpy as np
import torch

from dfkd.domains.base import Domain, Images, fit_images, split_validation, subsample
from dfkd.domains.training_split import alter_training

# Data sets whose constructor takes `split` instead of `train`, with the values for (train, test).
SPLITS = {"SVHN": ("train", "test"), "STL10": ("train", "test")}


def vision(
    dataset: str,
    root: str,
    download: bool,
    classes: int = 10,
    mean: list[float] | None = None,
    std: list[float] | None = None,
    size: int | None = None,
    channels: int | None = None,
    val_share: float = 0.1,
    split_seed: int = 0,
    limit: int | None = None,
    labels: list[int] | None = None,
    train_images: int | None = None,
    imbalance: float | None = None,
    label_noise: float | None = None,
) -> Domain:
    """Load a torchvision data set by its class name (MNIST, FashionMNIST, USPS, SVHN, CIFAR10, CIFAR100, STL10, ...).

    Args:
        dataset: class name in torchvision.datasets.
        root: folder of the data set, also for downloads (`data.root`).
        download: whether it may be downloaded (`data.download`).
        classes: number of classes.
        mean, std: normalisation, of length 1 or C; None means measured on the training images.
        size, channels: see `fit_images`.
        val_share: share of the training images that goes to validation, in (0, 1).
        split_seed: seed of the splits.
        limit: at most this many images per split, chosen at random with the seed.
        labels: new label of every class, a permutation of 0 .. classes - 1, to match the class order of another set.
            None means no change.
        train_images, imbalance, label_noise: see `alter_training`.

    Raises:
        ValueError: torchvision has no such set, labels is not a permutation, or a number is out of range.
        FileNotFoundError: the set is missing, and downloads are not allowed or fail.
    """
    import torchvision.datasets  # 2.5 s to import

    if not hasattr(torchvision.datasets, dataset):
        near = difflib.get_close_matches(dataset, torchvision.datasets.__all__, n=3)
        raise ValueError(f"torchvision.datasets has no '{dataset}'; nearest: {', '.join(near) or 'see its manual'}")
    if labels is not None and sorted(labels) != list(range(classes)):
        raise ValueError(f"labels must be a permutation of 0..{classes - 1}, got {labels}")
    maker, words = getattr(torchvision.datasets, dataset), SPLITS.get(dataset, (True, False))
    parts = []
    for word in words:
        keyword = {"split": word} if isinstance(word, str) else {"train": word}
        try:
            parts.append(_tensors(maker(root, download=download, **keyword), size, channels))
        except (RuntimeError, FileNotFoundError) as error:
            if download:
                raise FileNotFoundError(f"{dataset} could not be downloaded to {root}: {error}") from error
            raise FileNotFoundError(
                f"{dataset} is not in {Path(root).resolve()}; set data.root to the folder that has it, "
                f"or data.download=true to fetch it"
            ) from error
    if labels is not None:
        parts = [Images(part.x, torch.tensor(labels)[part.y]) for part in parts]
    train, val = split_validation(parts[0], val_share, split_seed)
    train, val, test = (subsample(part, limit, split_seed) for part in (train, val, parts[1]))
    train = alter_training(train, classes, split_seed, train_images, imbalance, label_noise)
    return Domain(dataset.lower(), classes, train, val, test, _per_channel(mean, train), _per_channel(std, train))


def _tensors(source: torch.utils.data.Dataset, size: int | None, channels: int | None) -> Images:
    """Convert a whole torchvision set, whatever its array layout, to images and labels."""
    x = torch.as_tensor(np.asarray(source.data))
    if x.dim() == 3:  # MNIST and its kin: (N, H, W)
        x = x[:, None]
    elif x.shape[-1] == 3:  # CIFAR: (N, H, W, C)
        x = x.permute(0, 3, 1, 2)
    labels = source.targets if hasattr(source, "targets") else source.labels
    return Images(fit_images(x.contiguous(), size, channels), torch.as_tensor(np.asarray(labels)).long())


def _per_channel(values: list[float] | None, images: Images) -> list[float]:
    """Return one value per channel; if the lengths differ, the mean of the values (a colour set used in grey)."""
    if values is None:
        return []
    channels = images.x.shape[1]
    if len(values) == channels:
        return list(values)
    return [sum(values) / len(values)] * channels
