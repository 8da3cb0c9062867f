"""Domains from a user's own files: npz archives and image folders."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from dfkd.domains.base import Domain, Images, carve, fit_images, limited


def npz(
    path: str,
    classes: int | None = None,
    label: str | None = None,
    size: int | None = None,
    channels: int | None = None,
    val_share: float = 0.1,
    split_seed: int = 0,
    limit: int | None = None,
) -> Domain:
    """A NumPy archive with x_train, y_train, x_test, y_test.

    x is (N, H, W), (N, H, W, C) or (N, C, H, W), uint8 in 0..255 or float in [0, 1]; y is (N,), integer.

    Args:
        classes: number of classes; the largest label + 1 if None.
        label: the domain's name in tables; the file's name if None.
        limit: at most this many images a split, a seeded choice.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not an npz archive, or an array is missing or has an impossible shape. Arrays of Python
            objects are refused: reading them would run code from the file.
    """
    file = Path(path)
    parts = read_archive(file, lambda x: fit_images(_channels_first(x, file), size, channels))
    classes = classes or int(max(part.y.max() for part in parts)) + 1
    train, val = carve(parts[0], val_share, split_seed)
    train, val, test = (limited(part, limit, split_seed) for part in (train, val, parts[1]))
    return Domain(label or file.stem, classes, train, val, test)


def read_archive(file: Path, examples: Callable[[np.ndarray], torch.Tensor]) -> list[Images]:
    """The parts [train, test] of a NumPy archive with x_train, y_train, x_test, y_test.

    Args:
        examples: makes (N, C, H, W) of an array x.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not an npz archive, it lacks an array, or labels are no whole numbers.
    """
    if not file.is_file():
        raise FileNotFoundError(f"there is no {file.resolve()}; give path=FILE.npz")
    try:
        opened = np.load(file, allow_pickle=False)
        if isinstance(opened, np.ndarray):
            raise ValueError("it holds one array, without a name")
        with opened as archive:
            arrays = {key: archive[key] for key in ("x_train", "y_train", "x_test", "y_test")}
    except KeyError as error:
        raise ValueError(f"{file} lacks an array: {error.args[0]}") from error
    except (ValueError, OSError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{file} cannot be read as an npz archive: {error}") from error
    return [Images(examples(arrays[f"x_{part}"]), _labels(arrays[f"y_{part}"], file)) for part in ("train", "test")]


def _labels(y: np.ndarray, file: Path) -> torch.Tensor:
    if not np.issubdtype(y.dtype, np.integer):
        raise ValueError(f"{file}: labels must be whole numbers, got {y.dtype}")
    return torch.from_numpy(y.astype(np.int64)).flatten()


def _channels_first(x: np.ndarray, file: Path) -> torch.Tensor:
    if x.ndim == 3:
        x = x[:, None]
    elif x.ndim == 4 and x.shape[-1] in (1, 3) and x.shape[1] not in (1, 3):
        x = x.transpose(0, 3, 1, 2)
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        raise ValueError(
            f"{file} holds images of shape {x.shape[1:]}; use (H, W), (H, W, C) or (C, H, W), C = 1 or 3; vectors are "
            f"for the domain embeddings"
        )
    if x.dtype != np.uint8:
        x = x.astype(np.float32)
        if not (x.min() >= 0 and x.max() <= 1):  # so that NaN is refused, too
            raise ValueError(
                f"{file} holds float images in {x.min():.3g}..{x.max():.3g}; use uint8, or floats in [0, 1]"
            )
    return torch.from_numpy(np.ascontiguousarray(x))


def image_folder(
    path: str,
    size: int | None = None,
    channels: int | None = 3,
    val_share: float = 0.1,
    split_seed: int = 0,
    limit: int | None = None,
) -> Domain:
    """A folder `path/train/<class>/*.png` with `path/test/<class>/*.png`, the classes in alphabetical order.

    Args:
        size: side in pixels all images are resized to (`data.size`), needed.

    Raises:
        FileNotFoundError: the train or test folder is missing or holds no images.
        ValueError: no size is given, or train and test have different classes.
    """
    from torchvision.datasets import ImageFolder  # 2.5 s to import

    if size is None:
        raise ValueError(f"image folder {path}: its images may differ in size; set data.size=32, say")
    parts, names = [], []
    for part in ("train", "test"):
        folder = Path(path) / part
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no {folder.resolve()}; expected {path}/train/<class>/ and .../test/")
        source = ImageFolder(str(folder), loader=_read)
        names.append(source.classes)
        x = [fit_images(image, size, channels) for image, _ in source]
        parts.append(Images(torch.cat(x), torch.tensor(source.targets)))
    if names[0] != names[1]:
        raise ValueError(f"{path}: train has the classes {names[0]}, test has {names[1]}")
    train, val = carve(parts[0], val_share, split_seed)
    train, val, test = (limited(part, limit, split_seed) for part in (train, val, parts[1]))
    return Domain(Path(path).name, len(names[0]), train, val, test)


def _read(file: str) -> torch.Tensor:
    """An image file as (1, 3, H, W), uint8."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None]
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{file} cannot be read as an image") from error
