"""Records: JSON objects that hold the checksums of files beside them (`files`) and of themselves (`digest`).

An artifact's meta.json is one, and a run folder's result.json.
"""

import hashlib
import json
from pathlib import Path

from dfkd.errors import Damaged
from dfkd.store.access import reading
from dfkd.store.digest import file_digest


def record_digest(record: dict) -> str:
    """sha256 of a record without its `digest`."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def sealed(record: dict) -> dict:
    """The record as JSON gives it back, with a digest of everything else in it."""
    plain = json.loads(json.dumps({key: value for key, value in record.items() if key != "digest"}))
    return plain | {"digest": record_digest(plain)}


def check_seal(record: dict, name: str) -> None:
    """Raise Damaged if a record is not what was sealed.

    Args:
        name: of its file, for the message.
    """
    rest = {key: value for key, value in record.items() if key != "digest"}
    if record.get("digest") != record_digest(rest):
        raise Damaged(f"{name} has changed")


def check_files(files: dict[str, str], folder: Path) -> None:
    """Read files, and compare them with their checksums.

    Raises:
        Damaged: one is missing or has changed.
        Inaccessible: the system does not let us read one.
    """
    for name, digest in files.items():
        with reading(folder / name):
            found = file_digest(folder / name)
        if found != digest:
            raise Damaged(f"{name} has changed")
