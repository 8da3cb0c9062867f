"""Digests of files and folders: sha256 of their bytes. What has not changed since is not read again.

The digests are remembered in a small file beside the store, by what the file system says of a file (size, inode, time
stamps). It may be deleted at any time: then everything is read once more.
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

MEMORY = "digests.json"
RECENT = 2_000_000_000  # nanoseconds; what changed this lately may change again without a later time stamp
LONG = 0.1  # seconds that it takes to walk through a large folder
CLUTTER = (".DS_Store", "Thumbs.db", "desktop.ini")  # what desktops put into folders that somebody looks at


def file_digest(file: Path, algorithm: str = "sha256") -> str:
    """'sha256:' and the hexadecimal digest of a file's bytes; of another algorithm likewise."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return f"{algorithm}:{digest.hexdigest()}"


class Digests:
    """Digests of files and folders, remembered.

    Args:
        memory: the file that remembers them; it need not exist, and one that is damaged counts as missing.
    """

    def __init__(self, memory: Path):
        self.memory = memory
        self.has_news = False
        self._walked: dict[Path, float] = {}  # large folders: until when they need not be walked again

    @functools.cached_property
    def known(self) -> dict[str, list]:
        """By absolute path: what the file system said of a file (None: not to be relied on), and its digest."""
        return _read(self.memory)

    def of(self, path: str, algorithm: str = "sha256") -> str:
        """The digest of a file; of a folder 'folder:' and sha256 of the names and digests of all files below;
        'missing:' and the path if there is neither. What is missing or may not be read is no error here: whoever opens
        it will say so.
        """
        where = Path(path).expanduser().absolute()
        before = self.known.get(str(where))
        if os.path.isfile(where):
            digest = self._of_file(str(where), algorithm)
        elif os.path.isdir(where):
            digest = self._of_folder(where)
        else:
            return f"missing:{path}"
        self._tell(where, before, digest)
        return digest

    def note(self, file: Path, digest: str) -> None:
        """Remember the digest of a file that somebody else has read, only to tell when it is another one."""
        before = self.known.get(str(file))
        self._keep(str(file), None, digest)
        self._tell(file, before, digest)

    def _of_file(self, file: str, algorithm: str = "sha256") -> str:
        try:
            looks = _looks(file)
            seen, digest = self.known.get(file, (None, ""))
            if seen == looks and digest.startswith(f"{algorithm}:"):
                return digest
            began = time.time_ns()
            digest = file_digest(Path(file), algorithm)
            settled = began - max(looks[2:]) > RECENT and _looks(file) == looks
        except OSError as error:
            return f"unreadable:{error.strerror}"
        self._keep(file, looks if settled else None, digest)
        return digest

    def _of_folder(self, where: Path) -> str:
        """Walk through a folder. A large one is not walked again for twenty times as long as that took, at most for ten
        seconds: every cell of a sweep asks for it."""
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
        self._keep(str(where), None, digest)
        took = time.monotonic() - began
        if took > LONG:
            self._walked[where] = time.monotonic() + min(20 * took, 10)
        return digest

    def _keep(self, path: str, looks: list[int] | None, digest: str) -> None:
        self.has_news |= self.known.get(path) != [looks, digest]
        self.known[path] = [looks, digest]

    def _tell(self, where: Path, before: list | None, digest: str) -> None:
        """Say that a file or folder has changed, if it has, and save the memory."""
        if before is not None and before[1].partition(":")[0] == digest.partition(":")[0] and before[1] != digest:
            log.info("%s has changed since it was last used: what depends on it is made anew", where)
        self.save()

    def save(self) -> None:
        """Write the memory, if there is anything new, with what other processes have added to it.

        It makes no folder: a command that is refused leaves nothing behind. That the memory cannot be written costs
        nothing but reading the files again; whether outputs can be written at all is checked elsewhere.
        """
        if not self.has_news or not self.memory.parent.is_dir():
            return
        self.has_news = False
        try:
            body = json.dumps(_read(self.memory) | self.known)
            write_atomic(self.memory, f"{_checksum(body)}\n{body}")
        except OSError as error:
            log.debug("%s cannot be written: %s", self.memory, error)


@functools.cache
def remembered(outputs: Path) -> Digests:
    """The digests that an outputs folder remembers, read once a process."""
    return Digests(outputs / MEMORY)


def _looks(file: str) -> list[int]:
    """What the file system says of a file: size, inode, when its bytes and when anything of it changed last.

    The last of them cannot be set by hand: a file of the same size that was given its old time stamp back is noticed.
    """
    stat = os.stat(file)
    return [stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns]


def _below(where: Path) -> Iterator[tuple[str, bool]]:
    """All files and folders below a folder in a fixed order, and whether it is a folder; through links to folders too,
    but in no circle. Neither broken links nor what is no plain file."""
    for root, folders, files in os.walk(where, followlinks=True):
        here = Path(root).resolve()
        folders[:] = [name for name in sorted(folders) if not here.is_relative_to(Path(root, name).resolve())]
        yield from ((os.path.join(root, name), True) for name in folders)
        paths = (os.path.join(root, name) for name in sorted(files) if name not in CLUTTER)
        yield from ((path, False) for path in paths if os.path.isfile(path))


def _read(memory: Path) -> dict[str, list]:
    """What a memory holds; nothing if it is missing or damaged."""
    try:
        checksum, _, body = memory.read_text().partition("\n")
        return json.loads(body) if checksum == _checksum(body) else {}
    except (OSError, ValueError):
        return {}


def _checksum(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()
