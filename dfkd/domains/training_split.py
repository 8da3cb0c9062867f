"""Options of every image domain that make its training split small, long-tailed or wrongly labelled."""

import torch
from torch import Tensor

from dfkd.domains.base import Images, subsample


def alter_training(
    train: Images,
    classes: int,
    seed: int,
    train_images: int | None = None,
    imbalance: float | None = None,
    label_noise: float | None = None,
) -> Images:
    """Return the training split after the options of a domain, in this order. Validation and test images stay.

    Args:
        train: the training images with their true labels.
        classes: number of classes.
        seed: of every choice (`split_seed`).
        train_images: at most this many images, chosen at random: a teacher memorises few images.
        imbalance: ratio of the largest to the smallest class, at least 1; see `long_tailed`.
        label_noise: share of the images that get a wrong label, in [0, 1); see `with_wrong_labels`.

    Raises:
        ValueError: a number is out of range, or a class would have no image left.
    """
    train = subsample(train, train_images, seed)
    if imbalance is not None:
        train = long_tailed(train, classes, imbalance, seed)
    if label_noise is not None:
        train = Images(train.x, with_wrong_labels(train.y, classes, label_noise, seed))
    return train


def long_tailed(images: Images, classes: int, ratio: float, seed: int) -> Images:
    """Return a random choice of the images in which class k of K has (Cui et al., CVPR 2019, arXiv 1901.05555)

        n_k = n_0 ratio^(-k / (K - 1))

    images, rounded. n_0 is the largest number for which every class has enough images.

    Args:
        ratio: of the largest class, 0, to the smallest one, K - 1; at least 1.

    Raises:
        ValueError: ratio < 1, or a class would have no image.
    """
    if ratio < 1:
        raise ValueError(f"imbalance is the largest class over the smallest one, and at least 1, got {ratio}")
    share = ratio ** -(torch.arange(classes, dtype=torch.float64) / max(1, classes - 1))
    available = torch.bincount(images.y, minlength=classes)
    counts = ((available / share).min() * share).round().long()
    if counts.min() < 1:
        raise ValueError(
            f"imbalance={ratio:g} leaves class {counts.argmin().item()} without an image, because the training split "
            f"has {available.tolist()} images of the classes; set it lower"
        )
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    kept = [order[images.y[order] == k][:count] for k, count in enumerate(counts.tolist())]
    return images.take(torch.cat(kept).sort().values)


def with_wrong_labels(labels: Tensor, classes: int, share: float, seed: int) -> Tensor:
    """Return labels (N,) of which round(share N) are wrong: symmetric noise, every wrong class is equally likely.

    Raises:
        ValueError: share is not in [0, 1).
    """
    if not 0 <= share < 1:
        raise ValueError(f"label_noise is the share of wrong training labels, in [0, 1), got {share}")
    generator = torch.Generator().manual_seed(seed)
    wrong = torch.randperm(len(labels), generator=generator)[: round(share * len(labels))]
    shift = torch.randint(1, classes, (len(wrong),), generator=generator)
    return labels.index_copy(0, wrong, (labels[wrong] + shift) % classes)
