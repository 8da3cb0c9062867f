"""The content-addressed store of artifacts: a stage that was computed once is never computed again.

An artifact is a folder `<root>/<stage>/<key>/` of files with a `meta.json` that holds their checksums. Its key is a
hash of everything that can change it. It is written into a temporary folder and renamed into place, so a killed run
leaves nothing half-written. It is built under a lock, so two runs that need the same artifact build it once. It is
checked when it is read, so damage is noticed, named and repaired. No file is a pickle. A long build saves a
`.<key>.checkpoint` in the same folder (`dfkd.resume.checkpoints`), which only the holder of the lock touches.

This module imports no torch, so a finished cell is recognised without that import. `python -m dfkd.store`
(dfkd/cli/store.py) lists and tidies a store.
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
from dfkd.store.record import check_digest, check_files, with_digest

log = logging.getLogger("dfkd")


@dataclass(frozen=True)
class Artifact:
    """What a finished stage has written.

    Attributes:
        path: its folder.
        key: its key, a hash of everything that can change it.
        meta: the metadata that the builder returned; always with `seconds`, the time of the build.
        reused: whether it was in the store already.
    """

    path: Path
    key: str
    meta: dict
    reused: bool


def read_record(folder: Path) -> dict:
    """Return the content of an artifact's meta.json, after a check of all files of the artifact.

    Raises:
        Damaged: a file is missing or has changed; the message names it.
        Inaccessible: the operating system refuses to read a file.
    """
    record = meta_record(folder)
    check_files(record["files"], folder)
    return record


def meta_record(folder: Path) -> dict:
    """Return the content of an artifact's meta.json, without a check of the other files.

    Raises:
        Damaged, Inaccessible: see `read_record`.
    """
    with reading(folder):
        if folder.is_file():
            raise Damaged("it is a file, and an artifact is a folder")
    record = read_object(folder / "meta.json")
    check_digest(record, "meta.json")
    if record.get("key") != folder.name:
        raise Damaged("meta.json is that of another artifact")
    return record


class Store:
    """Artifacts under one folder.

    Args:
        root: the folder; created if missing.
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
        """Read the artifact from the store, or build it if it is missing or damaged.

        Args:
            build: writes the artifact's files into the folder it is given and returns its metadata.
            about: the content that the key was computed from, stored in meta.json for a human reader.
            inputs: {stage: key} of the artifacts that feed it, stored in meta.json too.

        Raises:
            OSError: the folder cannot be written (disk full).
            Inaccessible: the operating system refuses to read or write it.
        """
        folder = self.root / stage / key
        artifact = self._read(folder, key)
        if artifact is not None:
            self._tidy(stage, key)
            return artifact
        with self._lock(stage, key):
            artifact = self._read(folder, key, log.warning)  # another process may have built it while we waited
            if artifact is not None:
                return artifact
            for stale in (self.root / stage).glob(f".{key}.*.tmp"):  # left by a killed process: we hold the lock now
                shutil.rmtree(stale, ignore_errors=True)
                stale.unlink(missing_ok=True)
            remove(folder)  # if it exists, it is damaged
            return self._build(folder, stage, key, build, about or {}, inputs or {})

    def find(self, stage: str, key: str) -> Artifact | None:
        """Return the artifact if it exists and is undamaged, else None.

        Raises:
            Inaccessible: the operating system refuses to read it.
        """
        return self._read(self.root / stage / key, key)

    def check_access(self, stage: str, key: str) -> None:
        """Raise Inaccessible if `fetch` could neither read nor build the artifact. To be called before any stage is
        computed."""
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
        """Return the path of the checkpoint from which a killed build is resumed; removed after the build."""
        return self.root / stage / f".{key}.checkpoint"

    def _tidy(self, stage: str, key: str) -> None:
        """Remove the checkpoint of a build that was killed after it had finished, but before it removed the file."""
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
            write_atomic(temporary / "meta.json", json.dumps(with_digest(record), indent=2) + "\n")
            for file in temporary.iterdir():
                sync(file)
            if not _publish(temporary, folder):
                artifact = self._read(folder, key)
                if artifact is None:
                    raise FileExistsError(errno.EEXIST, "another process is writing it without our lock", str(folder))
                shutil.rmtree(temporary, ignore_errors=True)
                return artifact
            self.checkpoint(stage, key).unlink(missing_ok=True)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        return Artifact(folder, key, meta, reused=False)

    def _read(self, folder: Path, key: str, warn: Callable = log.debug) -> Artifact | None:
        """Return the artifact if it exists and is undamaged, else None; damage is logged by `warn`."""
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
    """Remove a file, or a folder with everything in it, if it exists.

    Raises:
        Inaccessible: the operating system refuses.
    """
    with writing(path):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _publish(temporary: Path, folder: Path) -> bool:
    """Rename a temporary folder into its final place.

    Returns:
        False if the final folder exists: another machine has made it, and a shared disk shows it late.
    """
    try:
        os.rename(temporary, folder)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    sync(folder.parent)
    return True
