"""Records: JSON objects with checksums of the files in the same folder (`files`) and of the object itself (`digest`).

The meta.json of an artifact and the result.json of a run folder are records.
"""

import hashlib
import json
from pathlib import Path

from dfkd.errors import Damaged
from dfkd.store.access import reading
from dfkd.store.digest import file_digest


def record_digest(record: dict) -> str:
    """Return the sha256 (hexadecimal) of a record, its entry `digest` left out."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def with_digest(record: dict) -> dict:
    """Return the record after a round trip through JSON, with the digest of all its other entries added as `digest`."""
    rest = json.loads(json.dumps({key: value for key, value in record.items() if key != "digest"}))
    return rest | {"digest": record_digest(rest)}


def check_digest(record: dict, name: str) -> None:
    """Raise Damaged if a record differs from what `with_digest` returned.

    Args:
        name: name of its file, for the message.
    """
    rest = {key: value for key, value in record.items() if key != "digest"}
    if record.get("digest") != record_digest(rest):
        raise Damaged(f"{name} has changed")


def check_files(files: dict[str, str], folder: Path) -> None:
    """Read files and compare them with their checksums ({file name: checksum}).

    Raises:
        Damaged: a file is missing or has changed; the message names it.
        Inaccessible: the operating system refuses to read a file.
    """
    for name, digest in files.items():
        with reading(folder / name):
            actual = file_digest(folder / name)
        if actual != digest:
            raise Damaged(f"{name} has changed")
