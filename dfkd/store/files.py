"""Files that several processes share: locks that the system lets go of, texts that are never half-written."""

import contextlib
import fcntl
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from dfkd.errors import ConfigError

log = logging.getLogger("dfkd")


@contextlib.contextmanager
def file_lock(path: Path, what: str) -> Iterator[None]:
    """Hold an exclusive lock; the system lets go of it when the process ends, however it ends.

    Raises:
        ConfigError: the file system has no locks.
    """
    while True:
        with path.open("a") as handle:
            if not take_lock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB):
                log.info("waiting for another process that is making %s", what)
                take_lock(handle, fcntl.LOCK_EX)
            if not _is_still(path, handle.fileno()):
                continue  # `gc` took the file away between opening and locking it: another may hold the new one
            yield
            return


@contextlib.contextmanager
def try_lock(path: Path) -> Iterator[bool]:
    """Hold the lock of an existing lock file if nobody else does; yields whether it is held now."""
    try:
        handle = path.open("r+")  # NFS locks exclusively only what is open for writing
    except (FileNotFoundError, PermissionError):
        yield False
        return
    with handle:
        yield take_lock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB) and _is_still(path, handle.fileno())


def is_held(path: Path) -> bool:
    """Whether a process holds the lock of a lock file."""
    try:
        handle = path.open()
    except FileNotFoundError:
        return False
    with handle:
        return not take_lock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)


def take_lock(handle: IO, how: int) -> bool:
    """flock an open file; False if another process holds it and `how` is not to wait.

    Raises:
        ConfigError: the file system has no locks.
    """
    try:
        fcntl.flock(handle, how)
    except BlockingIOError:
        return False
    except OSError as error:
        raise ConfigError(
            f"{handle.name} cannot be locked ({error.strerror}): its file system has no flock; set outputs=DIR on one "
            f"that has (docs/slurm.md says how to tell)"
        ) from error
    return True


def _is_still(path: Path, handle: int) -> bool:
    """Whether an open file is the one that its path names now."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def write_atomic(path: Path, text: str) -> None:
    """Write a text file so that a reader sees the old or the new content, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")  # whatever the locale
    sync(temporary)
    os.replace(temporary, path)


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
