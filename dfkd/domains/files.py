"""Domains from a user's own files: npz archives and image folders."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from dfkd.domains.arrays import as_images, as_labels, count_classes
from dfkd.domains.base import Domain, Images, fit_images, split_validation, subsample
from dfkd.domains.class_folders import class_folders, differing_classes, in_words
from dfkd.domains.pictures import read_picture
from dfkd.domains.training_split import alter_training

ARRAYS = ("x_train", "y_train", "x_test", "y_test")


def npz(
    path: str,
    classes: int | None = None,
    label: str | None = None,
    size: int | None = None,
    channels: int | None = None,
    val_share: float = 0.1,
    split_seed: int = 0,
    limit: int | None = None,
    train_images: int | None = None,
    imbalance: float | None = None,
    label_noise: float | None = None,
) -> Domain:
    """Load a NumPy archive with x_train, y_train, x_test, y_test.

    `dfkd.domains.arrays` describes the accepted arrays.

    Args:
        path: the npz file.
        classes: number of classes; None means the largest label + 1.
        label: name of the domain in tables; None means the file's name.
        size, channels: see `fit_images`.
        val_share: share of the training images that goes to validation, in (0, 1).
        split_seed: seed of the splits.
        limit: at most this many images per split, chosen at random with the seed.
        train_images, imbalance, label_noise: see `alter_training`.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is not an npz archive, or an array is missing or is not images or labels. Arrays of Python
            objects are refused, because reading them would execute code from the file.
    """
    file = Path(path)
    parts, notes = read_archive(file, lambda x, name: fit_images(as_images(x, name), size, channels))
    if classes is None:
        classes = count_classes(parts[0].y, parts[1].y, str(file))
    train, val = split_validation(parts[0], val_share, split_seed)
    train, val, test = (subsample(part, limit, split_seed) for part in (train, val, parts[1]))
    train = alter_training(train, classes, split_seed, train_images, imbalance, label_noise)
    return Domain(label or file.stem, classes, train, val, test, notes=notes)


def read_archive(file: Path, examples: Callable[[np.ndarray, str], torch.Tensor]) -> tuple[list[Images], list[str]]:
    """Read a NumPy archive with x_train, y_train, x_test, y_test.

    Args:
        examples: converts an array x, given with its name for error messages, to (N, C, H, W).

    Returns:
        the parts [train, test], and notes to the user about unused arrays.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is not an npz archive, an array is missing, or labels are not integers.
    """
    if not file.is_file():
        raise FileNotFoundError(f"there is no {file.resolve()}; give path=FILE.npz")
    try:
        opened = np.load(file, allow_pickle=False)
        if isinstance(opened, np.ndarray):
            raise ValueError("it holds one array, without a name")
        with opened as archive:
            arrays = {key: archive[key] for key in ARRAYS}
            unused = sorted(set(archive.files) - {*ARRAYS})
    except KeyError as error:
        raise ValueError(f"{file} lacks an array: {error.args[0]}") from error
    except Exception as error:  # a damaged file raises too many different types to list
        raise ValueError(f"{file} cannot be read as an npz archive: {error}") from error
    parts = []
    for part in ("train", "test"):
        x = examples(arrays[f"x_{part}"], f"{file}: x_{part}")
        y = as_labels(arrays[f"y_{part}"], f"{file}: y_{part}")
        if len(x) != len(y):
            raise ValueError(f"{file}: {part} has {len(x)} examples but {len(y)} labels")
        parts.append(Images(x, y))
    return parts, [f"{file}: arrays that are not used: {', '.join(unused)}"] if unused else []


def image_folder(
    path: str,
    size: int | None = None,
    channels: int | None = 3,
    val_share: float = 0.1,
    split_seed: int = 0,
    limit: int | None = None,
    train_images: int | None = None,
    imbalance: float | None = None,
    label_noise: float | None = None,
) -> Domain:
    """Load images from `path/train/<class>/*.png` and `path/test/<class>/*.png`, with classes in alphabetical order.

    `dfkd.domains.class_folders` defines what counts as a class and as an image; the domain's `notes` list skipped
    files. `dfkd.domains.pictures` describes how images of any mode are converted to 8 bits.

    Args:
        path: the folder.
        size: side in pixels to which all images are resized (`data.size`); required.
        channels: see `fit_images`.
        val_share: share of the training images that goes to validation, in (0, 1).
        split_seed: seed of the splits.
        limit: at most this many images per split, chosen at random with the seed.
        train_images, imbalance, label_noise: see `alter_training`.

    Raises:
        FileNotFoundError: the train or test folder is missing, or a class has no images.
        ValueError: size is None, train and test have different classes, or an image cannot be used.
    """
    if size is None:
        raise ValueError(f"image folder {path}: its images may differ in size; set data.size=32, say")
    skipped: Counter[str] = Counter()
    folders = {part: class_folders(Path(path) / part, skipped) for part in ("train", "test")}
    difference = differing_classes(**folders)
    if difference:
        raise ValueError(f"{path}: train and test must have the same classes; {difference}")
    beside = [entry.name for entry in Path(path).iterdir() if entry.is_dir() and entry.name not in folders]
    skipped.update(f"folder {name} beside train and test" for name in beside if not name.startswith("."))
    notes = [f"{path}: skipped, as no images of a class: {in_words(skipped)}"] if skipped else []
    parts, transparent = [], 0
    for classes in folders.values():
        counts = torch.tensor([len(files) for files in classes.values()])
        x, shows_through = _read_all([file for files in classes.values() for file in files], size, channels)
        parts.append(Images(x, torch.arange(len(counts)).repeat_interleave(counts)))
        transparent += shows_through
    if transparent:
        notes.append(f"{path}: transparent parts of {transparent} images were laid over white")
    train, val = split_validation(parts[0], val_share, split_seed)
    train, val, test = (subsample(part, limit, split_seed) for part in (train, val, parts[1]))
    train = alter_training(train, len(folders["train"]), split_seed, train_images, imbalance, label_noise)
    return Domain(Path(path).name, len(folders["train"]), train, val, test, notes=notes)


def _read_all(files: list[Path], size: int, channels: int | None) -> tuple[torch.Tensor, int]:
    """Read image files as (N, C, size, size), uint8, and count those with transparent parts.

    Raises:
        ValueError: some files cannot be used; the message names them.
    """
    images, transparent, wrong = [], 0, []
    for file in files:
        try:
            image, shows_through = read_picture(file)
        except ValueError as error:
            wrong.append(str(error))
            continue
        images.append(fit_images(image[None], size, channels))
        transparent += shows_through
    if wrong:
        more = f"; {len(wrong) - 3} more of {len(files)} images" if len(wrong) > 3 else ""
        raise ValueError("; ".join(wrong[:3]) + more)
    return torch.cat(images), transparent
