"""Rows of a table, measured one after the other until a deadline; each is written as soon as it is there."""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from gpu import about, clock

Row = tuple[str, Callable[[], dict]]  # its name, and a function that measures it


def run(device: str, deadline: clock.Deadline, out: Path, rows: Iterable[Row], only: str = "", **more: object) -> dict:
    """Measure all rows that are not there yet, until the deadline. What another machine or commit measured is dropped.

    Args:
        out: JSON file of the rows.
        only: measure only rows whose name contains this.
        more: what the file says beside them.

    Returns:
        the content of the file: {**machine, **more, 'rows': {name: what was measured}}. A row that fails is
        {'right': False, 'error': message}.
    """
    here, known = about.machine(device), about.read(out) or {}
    same = all(known.get(key) == value for key, value in here.items() if key != "date")
    content = here | more | {"rows": known["rows"] if same else {}}
    try:
        with deadline.enforced():
            for name, measure in rows:
                if only in name and name not in content["rows"]:
                    content["rows"][name] = _measured(measure)
                    about.write(out, content)
                    print(f"{name:40s} {content['rows'][name]}", file=sys.stderr, flush=True)
    except clock.TimeUp:
        print(f"{out.stem}: the time is up; the next call goes on from here", file=sys.stderr)
    about.write(out, content)
    return content


def _measured(measure: Callable[[], dict]) -> dict:
    try:
        return measure()
    except (clock.TimeUp, KeyboardInterrupt):
        raise
    except Exception as error:
        return {"right": False, "error": f"{type(error).__name__}: {error}"[:300]}
