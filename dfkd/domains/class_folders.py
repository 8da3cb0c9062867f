"""Finds the image files of every class below a folder, and counts the files that are skipped."""

import os
from collections import Counter
from pathlib import Path

# Suffixes of image files that `pictures.open_picture` reads.
SUFFIXES = {
    *(".bmp", ".gif", ".jfif", ".jp2", ".jpeg", ".jpg", ".pbm", ".pfm", ".pgm", ".png", ".pnm", ".ppm"),
    *(".tif", ".tiff", ".webp"),
}
OF_THE_SYSTEM = ("__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information")


def class_folders(folder: Path, skipped: Counter[str]) -> dict[str, list[Path]]:
    """List the image files of every class, with classes and files in the order of torchvision's `ImageFolder`.

    A class is a direct subfolder of `folder`; its images may be in subfolders. Hidden folders, and folders that
    operating systems create, are not classes. (`ImageFolder` reads them, too.)

    Args:
        skipped: a counter to which skipped files and folders are added, by a description of their kind.

    Raises:
        FileNotFoundError: the folder does not exist or has no classes, or a class has no image.
    """
    if not folder.is_dir():
        beside = sorted(entry.name for entry in folder.parent.iterdir()) if folder.parent.is_dir() else []
        hint = f"; {folder.parent} holds {', '.join(beside[:5])}{' ...' * (len(beside) > 5)}" if beside else ""
        raise FileNotFoundError(f"there is no {folder.resolve()}; expected {folder}/<class>/{hint}")
    classes = []
    for entry in sorted(folder.iterdir()):
        if _is_left_out(entry.name, entry.is_dir(), skipped):
            continue
        if entry.is_dir():
            classes.append(entry)
        elif _is_image(entry.name, skipped):
            skipped["image outside of a class"] += 1
    if not classes:
        raise FileNotFoundError(f"{folder} holds no folders of classes{_besides(skipped)}; expected {folder}/<class>/")
    images = {entry.name: _images(entry, skipped) for entry in classes}
    empty = [name for name, files in images.items() if not files]
    if empty:
        raise FileNotFoundError(
            f"{folder} has classes without an image: {_some(empty)}{_besides(skipped)}; delete or fill them"
        )
    return images


def differing_classes(train: dict, test: dict) -> str | None:
    """Describe in which classes the training and test parts differ; None if they have the same classes."""
    only = {"train": sorted(train.keys() - test.keys()), "test": sorted(test.keys() - train.keys())}
    return "; ".join(f"only {part} has {_some(names)}" for part, names in only.items() if names) or None


def in_words(skipped: Counter[str]) -> str:
    """Describe what was skipped, such as '3 x .txt file, 1 x hidden file'."""
    return ", ".join(f"{count} x {kind}" for kind, count in sorted(skipped.items()))


def _besides(skipped: Counter[str]) -> str:
    return f" ({in_words(skipped)} skipped)" if skipped else ""


def _images(folder: Path, skipped: Counter[str]) -> list[Path]:
    """List the image files in a folder and all its subfolders, ordered by folder and name."""
    paths, visited = [], set()

    def fail(error: OSError) -> None:  # without it, os.walk silently skips unreadable folders
        raise error

    for root, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        real = os.path.realpath(root)
        if real in visited:  # a link to a folder visited before, such as a parent: avoids an endless loop
            folders.clear()
            continue
        visited.add(real)
        folders[:] = [name for name in folders if not _is_left_out(name, True, skipped)]
        paths += [(root, name) for name in names if not _is_left_out(name, False, skipped) and _is_image(name, skipped)]
    return [Path(root, name) for root, name in sorted(paths)]


def _is_left_out(name: str, is_folder: bool, skipped: Counter[str]) -> bool:
    """Whether an entry is hidden or created by an operating system; if so, count it in `skipped`."""
    out = name.startswith(".") or (is_folder and name in OF_THE_SYSTEM)
    if out:
        kind = "hidden" if name.startswith(".") else name
        skipped[f"{kind} folder" if is_folder else f"{kind} file"] += 1
    return out


def _is_image(name: str, skipped: Counter[str]) -> bool:
    """Whether a file has the suffix of an image; if not, count it in `skipped`."""
    suffix = Path(name).suffix.lower()
    if suffix not in SUFFIXES:
        skipped[f"{suffix} file" if suffix else "file without a suffix"] += 1
    return suffix in SUFFIXES


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
