"""What it means that a file cannot be read: it is damaged, or the system does not let us.

What is damaged is named and made again. What the system refuses (permissions, a failing disk) is told before anything
is computed, and is left as it is.
"""

import contextlib
import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path

from dfkd.errors import Damaged, Inaccessible, Missing

FULL = (errno.ENOSPC, errno.EDQUOT)  # of a disk; `dfkd.config.messages` has words for it


@contextlib.contextmanager
def reading(file: Path) -> Iterator[None]:
    """Inside the block a file is read.

    Raises:
        Missing, Damaged: it is not there, or it is no file.
        Inaccessible: the system does not let us read it.
    """
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Missing(f"{file.name} is missing") from error
    except IsADirectoryError as error:
        raise Damaged(f"{file.name} is a folder") from error
    except OSError as error:
        raise inaccessible(file, "read", error) from error


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Inside the block something is written.

    Raises:
        Inaccessible: the system does not let us write it.
        OSError: the disk is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise
        raise inaccessible(path, "written", error) from error


def inaccessible(path: Path, done: str, error: OSError) -> Inaccessible:
    """The error for a file or folder that cannot be 'read' or 'written'."""
    return Inaccessible(
        f"{error.filename or path} cannot be {done} ({error.strerror or error}). That is no damage, and nothing was "
        f"deleted or made again: ask its owner for access, or set outputs=DIR"
    )


def is_there(path: Path) -> bool:
    """Whether there is a file or folder of this name.

    Raises:
        OSError: the system does not let us look.
    """
    try:
        path.lstat()
        return True
    except (FileNotFoundError, NotADirectoryError):
        return False


def entries(folder: Path) -> list[Path]:
    """What is in a folder, sorted by name; nothing where there is no such folder.

    Raises:
        Inaccessible: the system does not let us look into it (where `Path.glob` finds nothing).
    """
    try:
        with os.scandir(folder) as found:
            return sorted(folder / entry.name for entry in found)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise inaccessible(folder, "read", error) from error


def read_object(file: Path) -> dict:
    """The object in a JSON file.

    Raises:
        Missing, Damaged: there is none.
        Inaccessible: the system does not let us read it.
    """
    with reading(file):
        text = file.read_bytes()
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{file.name} cannot be read") from error
    if not isinstance(found, dict):
        raise Damaged(f"{file.name} cannot be read: it holds no JSON object")
    return found
