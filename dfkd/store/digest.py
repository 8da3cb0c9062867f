"""Digests of files and folders: sha256 of their bytes. An unchanged file is not read again.

A small cache file in the outputs folder holds the digests, each with the size, inode and time stamps of its file. The
cache may be deleted at any time: then all files are read once more.
"""

import functools
import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

from dfkd.store.files import write_atomic

log = logging.getLogger("dfkd")

CACHE_FILE = "digests.json"
RECENT = 2_000_000_000  # nanoseconds; a file that changed so recently may change again without a later time stamp
LONG = 0.1  # seconds; a folder that takes longer to walk through counts as large
CLUTTER = (".DS_Store", "Thumbs.db", "desktop.ini")  # files that desktop programs create in a folder they display


def file_digest(file: Path, algorithm: str = "sha256") -> str:
    """Return the digest of a file's bytes as 'ALGORITHM:HEX', for instance 'sha256:9f86...'."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return f"{algorithm}:{digest.hexdigest()}"


class Digests:
    """Digests of files and folders, cached on disk.

    Args:
        cache_file: the cache file. It need not exist; a damaged one counts as missing.
    """

    def __init__(self, cache_file: Path):
        self.cache_file = cache_file
        self.has_unsaved = False
        self._walked: dict[Path, float] = {}  # of large folders: the time until which they are not walked again

    @functools.cached_property
    def known(self) -> dict[str, list]:
        """{absolute path: [file stamp, digest]}, see `_stamp` for the stamp. A stamp of None means that the digest must
        be computed again the next time."""
        return _read(self.cache_file)

    def of(self, path: str, algorithm: str = "sha256") -> str:
        """Return the digest of a file or folder.

        A missing or unreadable file is no error here: the code that opens it reports it.

        Returns:
            'ALGORITHM:HEX' for a file, or 'unreadable:REASON' where it cannot be read; 'folder:' and the sha256 of the
            names and digests of all files below for a folder; 'missing:' and the path if there is neither.
        """
        where = Path(path).expanduser().absolute()
        before = self.known.get(str(where))
        if os.path.isfile(where):
            digest = self._of_file(str(where), algorithm)
        elif os.path.isdir(where):
            digest = self._of_folder(where)
        else:
            return f"missing:{path}"
        self._report_change(where, before, digest)
        return digest

    def note(self, file: Path, digest: str) -> None:
        """Store a digest that the caller has computed. It is only used to log a change of the file; `of` does not
        rely on it."""
        before = self.known.get(str(file))
        self._cache(str(file), None, digest)
        self._report_change(file, before, digest)

    def _of_file(self, file: str, algorithm: str = "sha256") -> str:
        try:
            stamp = _stamp(file)
            known_stamp, digest = self.known.get(file, (None, ""))
            if known_stamp == stamp and digest.startswith(f"{algorithm}:"):
                return digest
            began = time.time_ns()
            digest = file_digest(Path(file), algorithm)
            settled = began - max(stamp[2:]) > RECENT and _stamp(file) == stamp
        except OSError as error:
            return f"unreadable:{error.strerror}"
        self._cache(file, stamp if settled else None, digest)
        return digest

    def _of_folder(self, where: Path) -> str:
        """Compute the digest of a folder by walking through it.

        Every cell of a sweep asks for it, so the digest of a large folder is used again for twenty times as long as
        the walk took, but for ten seconds at most.
        """
        began = time.monotonic()
        if began < self._walked.get(where, 0):
            return self.known[str(where)][1]
        if str(where) not in self.known:
            log.info("reading the files of %s once: keys stand for their bytes", where)
        body = hashlib.sha256()
        for path, is_folder in _below(where):
            digest = "" if is_folder else self._of_file(path)
            body.update(os.fsencode(path[len(str(where)) :]) + f"\0{digest}\n".encode())
        digest = f"folder:{body.hexdigest()}"
        self._cache(str(where), None, digest)
        took = time.monotonic() - began
        if took > LONG:
            self._walked[where] = time.monotonic() + min(20 * took, 10)
        return digest

    def _cache(self, path: str, stamp: list[int] | None, digest: str) -> None:
        self.has_unsaved |= self.known.get(path) != [stamp, digest]
        self.known[path] = [stamp, digest]

    def _report_change(self, where: Path, before: list | None, digest: str) -> None:
        """Log that a file or folder has changed, if it has, and save the cache.

        Args:
            before: the cached entry from before; None if there was none.
        """
        if before is not None and before[1].partition(":")[0] == digest.partition(":")[0] and before[1] != digest:
            log.info("%s has changed since it was last used: what depends on it is made anew", where)
        self.save()

    def save(self) -> None:
        """Write the cache if it has new entries, merged with those that other processes have added to it.

        No folder is created, so a command that is refused leaves nothing behind. A cache that cannot be written only
        means that the files are read again; `dfkd.stages.checks` checks that the outputs folder is writable.
        """
        if not self.has_unsaved or not self.cache_file.parent.is_dir():
            return
        self.has_unsaved = False
        try:
            body = json.dumps(_read(self.cache_file) | self.known)
            write_atomic(self.cache_file, f"{_checksum(body)}\n{body}")
        except OSError as error:
            log.debug("%s cannot be written: %s", self.cache_file, error)


@functools.cache
def digests_of(outputs: Path) -> Digests:
    """Return the digest cache of an outputs folder. Each process reads the cache file once."""
    return Digests(outputs / CACHE_FILE)


def _stamp(file: str) -> list[int]:
    """Return the stamp of a file: [size in bytes, inode, mtime, ctime], both times in nanoseconds.

    A user can set the mtime but not the ctime. So a changed file of the same size is noticed even if its old mtime was
    restored.
    """
    stat = os.stat(file)
    return [stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns]


def _below(where: Path) -> Iterator[tuple[str, bool]]:
    """Yield (path, is it a folder) for all files and folders below a folder, in a fixed order.

    Links to folders are followed unless they lead back to a parent folder. Broken links and special files (sockets,
    devices) are left out, and so is CLUTTER.
    """
    for root, folders, files in os.walk(where, followlinks=True):
        here = Path(root).resolve()
        folders[:] = [name for name in sorted(folders) if not here.is_relative_to(Path(root, name).resolve())]
        yield from ((os.path.join(root, name), True) for name in folders)
        paths = (os.path.join(root, name) for name in sorted(files) if name not in CLUTTER)
        yield from ((path, False) for path in paths if os.path.isfile(path))


def _read(cache_file: Path) -> dict[str, list]:
    """Return the content of a cache file; {} if it is missing or damaged."""
    try:
        checksum, _, body = cache_file.read_text().partition("\n")
        return json.loads(body) if checksum == _checksum(body) else {}
    except (OSError, ValueError):
        return {}


def _checksum(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()
