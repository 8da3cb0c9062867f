"""The content-addressed store of stages: what was computed once is never computed again.

An artifact is a folder `<root>/<stage>/<key>/` of files with a `meta.json` that holds their checksums. Its key is a
hash of everything that can change it. It is written into a temporary folder and renamed into place, so a killed run
leaves nothing half-written; it is built under a lock, so two runs that want the same artifact build it once; it is
checked when it is read, so damage is noticed, named and repaired. Nothing here is a pickle. A long build leaves a
`.<key>.checkpoint` beside (`dfkd.resume.checkpoints`), which only the holder of the lock touches.

This module imports no torch: keys are known before anything heavy is. `python -m dfkd.store` (dfkd/cli/store.py) looks
into a store and tidies it.
"""

import contextlib
import errno
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dfkd import __version__
from dfkd.errors import Damaged
from dfkd.store.access import inaccessible, is_there, read_object, reading, writing
from dfkd.store.digest import file_digest
from dfkd.store.files import file_lock, sync, write_atomic
from dfkd.store.record import check_files, check_seal, sealed

log = logging.getLogger("dfkd")


@dataclass(frozen=True)
class Artifact:
    """A finished stage.

    Attributes:
        path: its folder.
        key: its content key.
        meta: what the builder returned, with `seconds` and `peak_memory_mb` it took.
        reused: whether it was there already.
    """

    path: Path
    key: str
    meta: dict
    reused: bool


def read_record(folder: Path) -> dict:
    """What the meta.json of a whole artifact says.

    Raises:
        Damaged: it is not whole; the message names the file.
        Inaccessible: the system does not let us read it.
    """
    record = meta_record(folder)
    check_files(record["files"], folder)
    return record


def meta_record(folder: Path) -> dict:
    """The same without a look at the other files."""
    with reading(folder):
        if folder.is_file():
            raise Damaged("it is a file, and an artifact is a folder")
    record = read_object(folder / "meta.json")
    check_seal(record, "meta.json")
    if record.get("key") != folder.name:
        raise Damaged("meta.json is that of another artifact")
    return record


class Store:
    """Artifacts under one folder.

    Args:
        root: the folder; made if it is not there.
    """

    def __init__(self, root: Path):
        self.root = root

    def fetch(
        self,
        stage: str,
        key: str,
        build: Callable[[Path], dict],
        about: dict | None = None,
        inputs: dict[str, str] | None = None,
    ) -> Artifact:
        """The artifact, from the store or built now.

        Args:
            build: writes the artifact's files into the folder it is given and returns its metadata.
            about: what the key was made of, kept in meta.json for a human reader.
            inputs: keys of the artifacts that feed it, by stage, kept in meta.json too.

        Raises:
            OSError: the folder cannot be written (disk full).
            Inaccessible: the system does not let us read or write it.
        """
        folder = self.root / stage / key
        found = self._read(folder, key)
        if found is not None:
            self._tidy(stage, key)
            return found
        with self._lock(stage, key):
            found = self._read(folder, key, log.warning)  # another process may have built it while we waited
            if found is not None:
                return found
            for stale in (self.root / stage).glob(f".{key}.*.tmp"):  # of a killed builder: we hold its lock
                shutil.rmtree(stale, ignore_errors=True)
                stale.unlink(missing_ok=True)
            remove(folder)  # damaged
            return self._build(folder, stage, key, build, about or {}, inputs or {})

    def find(self, stage: str, key: str) -> Artifact | None:
        """The artifact if it is there and whole, else None.

        Raises:
            Inaccessible: the system does not let us read it.
        """
        return self._read(self.root / stage / key, key)

    def check_access(self, stage: str, key: str) -> None:
        """Raise Inaccessible if `fetch` could neither read the artifact nor make it: to be asked before any is made."""
        folder, lock, checkpoint = self.root / stage / key, self._lock_file(stage, key), self.checkpoint(stage, key)
        try:
            for name in ("meta.json", *meta_record(folder)["files"]):
                with reading(folder / name), (folder / name).open("rb"):
                    pass
            return
        except Damaged:
            above = next(path for path in folder.parents if path.exists())
        whole = os.R_OK | os.W_OK | os.X_OK
        for path, mode in ((above, whole), (folder, os.W_OK), (lock, os.W_OK), (checkpoint, os.R_OK)):
            if path.exists() and not os.access(path, mode):
                error = PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
                raise inaccessible(path, "written", error)

    def checkpoint(self, stage: str, key: str) -> Path:
        """Where who builds an artifact may keep what it needs to go on after being killed; gone when it is built."""
        return self.root / stage / f".{key}.checkpoint"

    def _tidy(self, stage: str, key: str) -> None:
        """Remove the checkpoint of a builder that was killed when it had just finished."""
        if self.checkpoint(stage, key).exists():
            with contextlib.suppress(OSError), self._lock(stage, key):
                self.checkpoint(stage, key).unlink(missing_ok=True)

    def _build(
        self, folder: Path, stage: str, key: str, build: Callable[[Path], dict], about: dict, inputs: dict[str, str]
    ) -> Artifact:
        temporary = folder.parent / f".{key}.{os.getpid()}.tmp"
        temporary.mkdir(parents=True)
        try:
            began = time.monotonic()
            meta = build(temporary)
            meta.setdefault("seconds", round(time.monotonic() - began, 3))
            record = {
                "stage": stage,
                "key": key,
                "dfkd": __version__,
                "about": about,
                "inputs": inputs,
                "meta": meta,
                "files": {file.name: file_digest(file) for file in sorted(temporary.iterdir())},
            }
            write_atomic(temporary / "meta.json", json.dumps(sealed(record), indent=2) + "\n")
            for file in temporary.iterdir():
                sync(file)
            if not _publish(temporary, folder):
                found = self._read(folder, key)
                if found is None:
                    raise FileExistsError(errno.EEXIST, "another process is writing it without our lock", str(folder))
                shutil.rmtree(temporary, ignore_errors=True)
                return found
            self.checkpoint(stage, key).unlink(missing_ok=True)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        return Artifact(folder, key, meta, reused=False)

    def _read(self, folder: Path, key: str, warn: Callable = log.debug) -> Artifact | None:
        """The artifact if it is there and whole; a damaged one is named and treated as missing."""
        with reading(folder):
            if not is_there(folder):
                return None
        try:
            return Artifact(folder, key, read_record(folder)["meta"], reused=True)
        except Damaged as error:
            warn("damaged artifact %s (%s): it is built again", folder, error)
            return None

    @contextlib.contextmanager
    def _lock(self, stage: str, key: str) -> Iterator[None]:
        with writing(self.root / stage):
            (self.root / stage).mkdir(parents=True, exist_ok=True)
        with file_lock(self._lock_file(stage, key), f"{stage} {key}"):
            yield

    def _lock_file(self, stage: str, key: str) -> Path:
        return self.root / stage / f".{key}.lock"


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it, if it is there.

    Raises:
        Inaccessible: the system does not let us.
    """
    with writing(path):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _publish(temporary: Path, folder: Path) -> bool:
    """Rename a folder into place; False if there is one: another machine made it, and a shared disk tells us late."""
    try:
        os.rename(temporary, folder)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    sync(folder.parent)
    return True
