"""Reader of a sweep's list of cells, `<outputs>/sweeps/*.jsonl`. A broken line is skipped, and all others are read.

`dfkd.sweeps.ledger` writes the list and describes its rows.
"""

import json
import logging
import os
from pathlib import Path

from dfkd.errors import Damaged
from dfkd.store.access import LONGEST, reading

log = logging.getLogger("dfkd")
KINDS = {  # {key of a row: type of its value}
    **{"number": int, "status": str, "folder": str | None, "arguments": list | None, "error": str | None},
    **{"with": int | None, "process": int | None, "job": int | None, "stages": dict | None},
}
_told: set[tuple[Path, int]] = set()  # (file, line number) of warnings so far: a list is read many times


def read_list(file: Path) -> list[dict]:
    """Return the rows of a sweep's list; an empty list if there is no such file.

    A line that is no valid row is skipped, with one warning per process. A last line without a line end is skipped
    silently: another process is writing it.

    Raises:
        Inaccessible: the operating system refuses to read it.
    """
    try:
        with reading(file):
            *lines, _ = file.read_text(errors="replace").split("\n")
    except Damaged:
        return []
    rows = []
    for number, line in enumerate(lines, 1):
        row = _row(line)
        if row is not None:
            rows.append(row)
        elif (file, number) not in _told:
            _told.add((file, number))
            log.warning("%s: line %d is skipped, it is no row of a sweep's list", file, number)
    return rows


def _row(line: str) -> dict | None:
    """Return the row in a line; None if the line is not valid JSON, or a value has the wrong type."""
    try:
        row = {"folder": None, "arguments": None} | json.loads(line)
    except (ValueError, TypeError, RecursionError):
        return None
    fits = all(isinstance(row.get(key), kinds) and row.get(key) is not True for key, kinds in KINDS.items())
    words = [row["folder"] or "", *(row["arguments"] or ())] if fits else [None]
    words_fit = all(isinstance(word, str) and "\0" not in word for word in words)
    return row if words_fit and _is_path(row["folder"] or "") else None


def _is_path(text: str) -> bool:
    """Return whether a text can be the path of a file."""
    try:
        return all(len(name) <= LONGEST for name in os.fsencode(text).split(b"/"))
    except UnicodeEncodeError:
        return False
