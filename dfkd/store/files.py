"""Files that several processes share: locks that the system lets go of, texts that are never half-written."""

import contextlib
import fcntl
import logging
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from dfkd.errors import ConfigError
from dfkd.store.access import writing

log = logging.getLogger("dfkd")
TEMPORARY = re.compile(r"\..+\.(\d+)\.tmp", re.DOTALL)  # of `write_atomic`; the number is the writing process
PATIENCE = 10.0  # seconds for which a temporary file of a process that is not on this machine may be one of another's
ABANDONED = 3600.0  # seconds after which nobody is still writing it: the number is that of a later process


@contextlib.contextmanager
def file_lock(path: Path, what: str) -> Iterator[None]:
    """Hold an exclusive lock; the system lets go of it when the process ends, however it ends.

    Raises:
        ConfigError: the file system has no locks, or the file cannot be opened.
    """
    while True:
        with _opened(path) as handle:
            if not take_lock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB):
                log.info("waiting for another process that is making %s", what)
                take_lock(handle, fcntl.LOCK_EX)
            if not _is_still(path, handle.fileno()):
                continue  # `gc` took the file away between opening and locking it: another may hold the new one
            yield
            return


def _opened(path: Path) -> IO:
    with writing(path):
        return path.open("a")


@contextlib.contextmanager
def try_lock(path: Path) -> Iterator[bool]:
    """Hold the lock of an existing lock file if nobody else does; yields whether it is held now."""
    try:
        handle = path.open("r+")  # NFS locks exclusively only what is open for writing
    except OSError:
        yield False
        return
    with handle:
        yield take_lock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB) and _is_still(path, handle.fileno())


def is_held(path: Path) -> bool:
    """Whether a process holds the lock of a lock file; True too where the system does not let us look."""
    try:
        handle = path.open()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return False
    except OSError:
        return True
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


def is_being_written(path: Path, lock: Path | None = None) -> bool:
    """Whether a temporary file of `write_atomic` still has a writer.

    Args:
        lock: the lock file of its folder, if there is one: who holds it may be on another machine.
    """
    try:
        age = time.time() - path.lstat().st_mtime
    except OSError:
        return False
    if is_alive(int(TEMPORARY.fullmatch(path.name)[1])):
        return age < ABANDONED
    return is_held(lock) if lock is not None else age < PATIENCE


def is_alive(process: int) -> bool:
    """Whether this machine has a process of that number."""
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
