"""Digests of files, folders and the program. A large archive is read once a process, however many cells name it."""

import functools
import hashlib
import importlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parents[1]
RECENT = 2e9  # nanoseconds; what changed this lately may change again without a later time stamp

_folders: dict[Path, tuple[dict[Path, int], str]] = {}  # the folders below one and when each changed; the digest


def path_digest(path: str) -> str:
    """sha256 of a file's bytes; of the relative names and sizes of a folder's files; the path itself if it is missing
    (whoever opens it will say so).

    Computed once a process for a file of the same time stamp and size, and for a folder in which no file was added,
    removed or renamed.
    """
    where = Path(path)
    if where.is_file():
        stat = where.stat()
        known = _digest_of if _settled(stat.st_mtime_ns) else _digest_of.__wrapped__
        return known(where.resolve(), stat.st_mtime_ns, stat.st_size)
    if not where.is_dir():
        return f"missing:{path}"
    return _folder_digest(where.resolve())


@functools.lru_cache(maxsize=64)
def _digest_of(file: Path, changed: int, size: int) -> str:
    return file_digest(file)


def _folder_digest(where: Path) -> str:
    if where in _folders:
        folders, digest = _folders[where]
        if all(folder.is_dir() and folder.stat().st_mtime_ns == changed for folder, changed in folders.items()):
            return digest
    folders, body = {where: where.stat().st_mtime_ns}, hashlib.sha256()
    for file in sorted(where.rglob("*")):
        if file.is_file():
            body.update(f"{file.relative_to(where)} {file.stat().st_size}\n".encode())
        elif file.is_dir():
            folders[file] = file.stat().st_mtime_ns
    digest = f"folder:{body.hexdigest()}"
    if _settled(max(folders.values())):
        _folders[where] = folders, digest
    return digest


def _settled(changed: int) -> bool:
    return time.time_ns() - changed > RECENT


def file_digest(file: Path) -> str:
    """sha256 of a file's bytes."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return f"sha256:{digest.hexdigest()}"


def code_digest(config: dict) -> str:
    """sha256 of the program: all of this package's modules, and those that a configuration's `_target_`s name."""
    digest = hashlib.sha256(_package().encode())
    for module in sorted({target.rpartition(".")[0] for target in _targets(config)}):
        file = getattr(importlib.import_module(module), "__file__", None)
        if file and PACKAGE not in Path(file).parents:
            digest.update(Path(file).read_bytes())
    return digest.hexdigest()


@functools.cache
def _package() -> str:
    digest = hashlib.sha256()
    for file in sorted(PACKAGE.rglob("*.py")):
        digest.update(f"{file.relative_to(PACKAGE)}\n".encode() + file.read_bytes())
    return digest.hexdigest()


def _targets(node: Any) -> Iterator[str]:
    for value in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _targets(value)
    if isinstance(node, dict) and "_target_" in node:
        yield node["_target_"]
