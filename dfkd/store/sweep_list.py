"""A sweep's list, `<outputs>/sweeps/*.jsonl`, read row by row: half a line costs that line, and no other.

What stands in a row is told in `dfkd.sweeps.ledger`, which writes it.
"""

import json
import logging
from pathlib import Path

from dfkd.errors import Damaged
from dfkd.store.access import reading

log = logging.getLogger("dfkd")
KINDS = {  # of the values of a row
    **{"number": int, "status": str, "folder": str | None, "arguments": list | None, "error": str | None},
    **{"with": int | None, "process": int | None, "job": int | None, "stages": dict | None},
}
_told: set[tuple[Path, int]] = set()  # lines that were named: a list is read again and again


def read_list(file: Path) -> list[dict]:
    """The rows of a sweep's list; none where there is no such file. A line that is no row is named once, and skipped;
    but for the last one, if it has no end: somebody is writing it.

    Raises:
        Inaccessible: the system does not let us read it.
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
    """The row in a line, if it is one."""
    try:
        row = {"folder": None, "arguments": None} | json.loads(line)
    except (ValueError, TypeError, RecursionError):
        return None
    fits = all(isinstance(row.get(key), kinds) and row.get(key) is not True for key, kinds in KINDS.items())
    words = [row["folder"] or "", *(row["arguments"] or ())] if fits else [None]
    return row if all(isinstance(word, str) and "\0" not in word for word in words) else None
