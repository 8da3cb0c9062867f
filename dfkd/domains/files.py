"""Domains from a user's own files: npz archives and image folders."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from dfkd.domains.arrays import as_images, as_labels, count_classes
from dfkd.domains.base import Domain, Images, carve, fit_images, limited
from dfkd.domains.class_folders import class_folders, differing_classes, in_words
from dfkd.domains.pictures import read_picture

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
) -> Domain:
    """A NumPy archive with x_train, y_train, x_test, y_test.

    What arrays may look like: `dfkd.domains.arrays`.

    Args:
        classes: number of classes; the largest label + 1 if None.
        label: the domain's name in tables; the file's name if None.
        limit: at most this many images a split, a seeded choice.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not an npz archive, or an array is missing or holds no images or labels. Arrays of Python
            objects are refused: reading them would run code from the file.
    """
    file = Path(path)
    parts, notes = read_archive(file, lambda x, name: fit_images(as_images(x, name), size, channels))
    if classes is None:
        classes = count_classes(parts[0].y, parts[1].y, str(file))
    train, val = carve(parts[0], val_share, split_seed)
    train, val, test = (limited(part, limit, split_seed) for part in (train, val, parts[1]))
    return Domain(label or file.stem, classes, train, val, test, notes=notes)


def read_archive(file: Path, examples: Callable[[np.ndarray, str], torch.Tensor]) -> tuple[list[Images], list[str]]:
    """The parts [train, test] of a NumPy archive with x_train, y_train, x_test, y_test, and notes for the user on what
    else it holds.

    Args:
        examples: makes (N, C, H, W) of an array x and its name in messages.

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
            arrays = {key: archive[key] for key in ARRAYS}
            unused = sorted(set(archive.files) - {*ARRAYS})
    except KeyError as error:
        raise ValueError(f"{file} lacks an array: {error.args[0]}") from error
    except Exception as error:  # a damaged file fails in too many ways to name
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
) -> Domain:
    """A folder `path/train/<class>/*.png` with `path/test/<class>/*.png`, the classes in alphabetical order.

    What counts as a class and an image: `dfkd.domains.class_folders`; what was skipped stands in the domain's `notes`.
    How images of any mode become 8-bit ones: `dfkd.domains.pictures`.

    Args:
        size: side in pixels all images are resized to (`data.size`), needed.

    Raises:
        FileNotFoundError: the train or test folder is missing, or a class without images.
        ValueError: no size is given, train and test have different classes, or an image cannot be used.
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
    train, val = carve(parts[0], val_share, split_seed)
    train, val, test = (limited(part, limit, split_seed) for part in (train, val, parts[1]))
    return Domain(Path(path).name, len(folders["train"]), train, val, test, notes=notes)


def _read_all(files: list[Path], size: int, channels: int | None) -> tuple[torch.Tensor, int]:
    """Image files as (N, C, size, size), uint8, and how many of them have transparent parts.

    Raises:
        ValueError: naming those that cannot be used.
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
