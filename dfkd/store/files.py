"""Files that several processes share: locks that the system releases when a process ends, and atomic writes."""

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
TEMPORARY = re.compile(r"\..+\.(\d+)\.tmp", re.DOTALL)  # files of `write_atomic`; the number is the writer's process id
# Seconds. No process of this machine has the id in the name of a temporary file: if the file is younger than this, a
# process of another machine may still be writing it.
PATIENCE = 10.0
ABANDONED = 3600.0  # seconds; an older temporary file has no writer: a later process was given the same process id


@contextlib.contextmanager
def file_lock(path: Path, what: str) -> Iterator[None]:
    """Hold an exclusive lock on a lock file inside the block, and wait for it if another process holds it.

    The operating system releases the lock when the process ends, however it ends.

    Args:
        path: the lock file; created if missing.
        what: the thing that the lock protects, for the log.

    Raises:
        ConfigError: the file system has no flock.
        Inaccessible: the operating system refuses to open the file.
    """
    while True:
        with _opened(path) as handle:
            if not take_lock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB):
                log.info("waiting for another process that is making %s", what)
                take_lock(handle, fcntl.LOCK_EX)
            if not _is_still(path, handle.fileno()):
                continue  # `gc` deleted the file between open and lock: another process may hold a new one
            yield
            return


def _opened(path: Path) -> IO:
    with writing(path):
        return path.open("a")


@contextlib.contextmanager
def try_lock(path: Path) -> Iterator[bool]:
    """Try to lock an existing lock file inside the block, without waiting; yields whether this process holds it."""
    try:
        handle = path.open("r+")  # NFS gives an exclusive lock only on a file that is open for writing
    except OSError:
        yield False
        return
    with handle:
        yield take_lock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB) and _is_still(path, handle.fileno())


def is_held(path: Path) -> bool:
    """Return whether a process holds the lock of a lock file; also True if the system refuses to open the file."""
    try:
        handle = path.open()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return False
    except OSError:
        return True
    with handle:
        return not take_lock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)


def take_lock(handle: IO, how: int) -> bool:
    """Lock an open file with flock.

    Args:
        how: flags of `fcntl.flock`. Without LOCK_NB the call waits until the lock is free.

    Returns:
        whether the file is locked now; False only with LOCK_NB, if another process holds the lock.

    Raises:
        ConfigError: the file system has no flock.
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
    """Return whether the path still names the file that is open, and not a new file of the same name.

    Args:
        handle: file descriptor of the open file.
    """
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def write_atomic(path: Path, text: str) -> None:
    """Write a text file (UTF-8) so that a reader sees the whole old or the whole new content, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")  # the default encoding depends on the locale
    sync(temporary)
    os.replace(temporary, path)


def is_being_written(path: Path, lock: Path | None = None) -> bool:
    """Return whether a process may still be writing a temporary file of `write_atomic`.

    Args:
        lock: the lock file of its folder, if there is one: the process that holds it may be on another machine.
    """
    try:
        age = time.time() - path.lstat().st_mtime
    except OSError:
        return False
    if is_alive(int(TEMPORARY.fullmatch(path.name)[1])):
        return age < ABANDONED
    return is_held(lock) if lock is not None else age < PATIENCE


def is_alive(process: int) -> bool:
    """Return whether a process with this id runs on this machine."""
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


def sync(path: Path) -> None:
    """Flush a file or folder to the disk (fsync)."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
