"""Converts a user's NumPy arrays to images and labels; error messages say how to correct the arrays."""

import numpy as np
import torch
from torch import Tensor


def as_images(x: np.ndarray, name: str) -> Tensor:
    """Convert an array to images (N, C, H, W), uint8 in 0..255 or float32 in [0, 1].

    Args:
        x: (N, H, W), (N, H, W, C) or (N, C, H, W) with C = 1 or 3; uint8, booleans, floats in [0, 1], or integers of
            another type in 0..255. If such integers are only 0 and 1, they mean black and white.
        name: name of the array in error messages.

    Raises:
        ValueError: the shape or the range of values is different.
    """
    if x.ndim == 0 or len(x) == 0:
        raise ValueError(f"{name} holds no images (its shape is {x.shape})")
    if x.ndim == 3:
        x = x[:, None]
    elif x.ndim == 4 and x.shape[-1] in (1, 3) and x.shape[1] not in (1, 3):
        x = x.transpose(0, 3, 1, 2)
    if x.ndim != 4 or x.shape[1] not in (1, 3) or 0 in x.shape:
        raise ValueError(
            f"{name} holds images of shape {x.shape[1:]}; use (H, W), (H, W, C) or (C, H, W), C = 1 or 3; vectors are "
            f"for the domain embeddings"
        )
    return torch.from_numpy(np.ascontiguousarray(_in_range(x, name)))


def _in_range(x: np.ndarray, name: str) -> np.ndarray:
    """Convert pixels to uint8 in 0..255 or float32 in [0, 1]."""
    if x.dtype.kind not in "buif":
        raise ValueError(f"{name} holds {x.dtype}, not numbers; use uint8, or floats in [0, 1]")
    low, high = x.min(), x.max()
    if x.dtype == np.uint8:
        if high == 1:
            raise ValueError(f"{name} is uint8, but holds 0 and 1 alone, which is black of 0..255; multiply it by 255")
        return x
    if low >= 0 and high <= 1:
        return x.astype(np.float32)
    kind = "float images" if x.dtype.kind == "f" else f"{x.dtype} images"
    fix = "use uint8, or floats in [0, 1]"
    if not (np.isfinite(low) and np.isfinite(high)):
        count = len(x) - np.isfinite(x).reshape(len(x), -1).all(1).sum()
        raise ValueError(f"{name}: {count} of {len(x)} {kind} have NaN or infinite pixels; leave them out")
    if low >= 0 and high <= 255:
        if x.dtype.kind != "f":
            return x.astype(np.uint8)
        fix = "for 0..255, save x.astype(numpy.uint8), or x / 255, which lies in [0, 1]"
    elif low >= 0 and high <= 65535 and x.dtype.kind != "f":
        fix = "for 16 bits, save x / 65535 as float32"
    elif low >= -1 and high <= 1:
        fix = "for -1..1, save (x + 1) / 2"
    elif low >= -10 and high <= 10:
        fix = "they seem normalised: save x * std + mean, which lies in [0, 1]"
    raise ValueError(f"{name} holds {kind} in {low:.6g}..{high:.6g}; {fix}")


def as_labels(y: np.ndarray, name: str) -> Tensor:
    """Convert an array to labels (N,), int64, at least 0.

    Args:
        y: (N,) or (N, 1): integers, booleans, or floats with integer values.
        name: name of the array in error messages.

    Raises:
        ValueError: the array is not of this form, is empty, or contains values below 0 or from 2^31.
    """
    if y.size == 0:
        raise ValueError(f"{name} holds no labels (its shape is {y.shape})")
    if y.ndim > 1 and y.size != max(y.shape):
        one_hot = " If they are one-hot, save y.argmax(1)." if y.ndim == 2 else ""
        raise ValueError(f"{name} has the shape {y.shape}; labels are one whole number an image.{one_hot}")
    y = y.reshape(-1)
    if y.dtype.kind in "USO":
        raise ValueError(
            f"{name}: labels must be whole numbers, got {y.dtype} ({y[0]!r}, ...); save "
            f"numpy.unique(y, return_inverse=True)[1]"
        )
    if y.dtype.kind not in "biuf" or not np.all(np.isfinite(y)) or not np.all(y == np.floor(y)):
        raise ValueError(f"{name}: labels must be whole numbers, got {y.dtype}{_example(y)}; save 0, 1, 2, ...")
    if y.min() < 0:
        raise ValueError(
            f"{name} has labels {y.min():.0f}..{y.max():.0f}; they must begin at 0. Leave out images without a label"
        )
    if y.max() >= 2**31:
        raise ValueError(f"{name} has labels up to {y.max():.0f}; number the classes 0, 1, 2, ...")
    return torch.from_numpy(y.astype(np.int64))


def _example(y: np.ndarray) -> str:
    if y.dtype.kind != "f":
        return ""
    return f" such as {y[~(np.isfinite(y) & (y == np.floor(y)))][0]:.3g}"


def count_classes(train: Tensor, test: Tensor, name: str) -> int:
    """Infer the number of classes from training and test labels (N,): the largest label + 1.

    Raises:
        ValueError: the smallest label is above 0, or there are more classes than training images.
    """
    low, high = int(min(train.min(), test.min())), int(max(train.max(), test.max()))
    if low > 0:
        raise ValueError(
            f"{name} has labels {low}..{high}, and the first class is 0; save y - {low}, or set classes={high + 1} if "
            f"no image is of a class below {low}"
        )
    if high >= len(train):
        raise ValueError(
            f"{name} has labels up to {high}, which makes {high + 1} classes of {len(train)} training images; save "
            f"numpy.unique(y, return_inverse=True)[1], or set classes={high + 1}"
        )
    return high + 1
