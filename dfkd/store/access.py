"""Why a file cannot be read: its content is damaged, or the operating system refuses access.

A damaged file is named in a message and made again. A refused access (permissions, a failing disk) is reported before
anything is computed, and the file is left as it is.
"""

import contextlib
import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path

from dfkd.errors import Damaged, Inaccessible, Missing

LONGEST = 255  # largest number of bytes in a file name, on nearly every file system
FULL = (errno.ENOSPC, errno.EDQUOT)  # the disk or the quota is full; `dfkd.config.messages` words the message


@contextlib.contextmanager
def reading(file: Path) -> Iterator[None]:
    """Turn an OSError of reading `file` inside the block into an error of this package.

    Raises:
        Missing: the file does not exist.
        Damaged: there is a folder in its place.
        Inaccessible: the operating system refuses to read it.
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
    """Turn an OSError of writing `path` inside the block into an error of this package.

    Raises:
        Inaccessible: the operating system refuses to write it.
        OSError: the disk is full; this error is passed on unchanged.
    """
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise
        raise inaccessible(path, "written", error) from error


def inaccessible(path: Path, done: str, error: OSError) -> Inaccessible:
    """Return the error for a file or folder that the operating system refuses to read or write.

    Args:
        done: 'read' or 'written', for the message.
    """
    return Inaccessible(
        f"{error.filename or path} cannot be {done} ({error.strerror or error}). That is no damage, and nothing was "
        f"deleted or made again: ask its owner for access, or set outputs=DIR"
    )


def is_there(path: Path) -> bool:
    """Return whether a file, a folder or a link (also a broken one) exists at this path.

    Raises:
        OSError: the operating system refuses to look.
    """
    try:
        path.lstat()
        return True
    except (FileNotFoundError, NotADirectoryError):
        return False


def entries(folder: Path) -> list[Path]:
    """Return the paths of all entries of a folder, sorted by name; an empty list if there is no such folder.

    Raises:
        Inaccessible: the operating system refuses to list the folder (`Path.glob` would silently give nothing).
    """
    try:
        with os.scandir(folder) as items:
            return sorted(folder / entry.name for entry in items)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise inaccessible(folder, "read", error) from error


def read_object(file: Path) -> dict:
    """Read a JSON file that holds one object, as a dict.

    Raises:
        Missing: the file does not exist.
        Damaged: it is not valid JSON, or it holds no object.
        Inaccessible: the operating system refuses to read it.
    """
    with reading(file):
        text = file.read_bytes()
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{file.name} cannot be read") from error
    if not isinstance(content, dict):
        raise Damaged(f"{file.name} cannot be read: it holds no JSON object")
    return content
