"""Rows of a table, measured one after the other until a deadline; each is written as soon as it is there."""

import contextlib
import logging
import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch

from gpu import about, clock

Row = tuple[str, Callable[[], dict]]  # its name, and a function that measures it


def run(
    device: str,
    deadline: clock.Deadline,
    out: Path,
    rows: Iterable[Row],
    only: str = "",
    workers: int = 1,
    **more: object,
) -> dict:
    """Measure all rows that are not there yet, until the deadline. What another machine or commit measured is dropped.

    Args:
        out: JSON file of the rows.
        only: measure only rows whose name contains this.
        workers: processes that measure, each a row at a time; their functions have to be picklable. With one, this
            process measures.
        more: what the file says beside them.

    Returns:
        the content of the file: {**machine, **more, 'rows': {name: what was measured}}. A row that fails is
        {'right': False, 'error': message}.
    """
    here, known = about.machine(device), about.read(out) or {}
    same = all(known.get(key) == value for key, value in here.items() if key != "date")
    content = here | more | {"rows": known["rows"] if same else {}}
    todo = [(name, measure) for name, measure in rows if only in name and name not in content["rows"]]
    try:
        with deadline.enforced():
            for name, found in _in_turn(todo) if workers < 2 else _beside(todo, workers):
                content["rows"][name] = found
                about.write(out, content)
                print(f"{name:40s} {found}", file=sys.stderr, flush=True)
    except clock.TimeUp:
        print(f"{out.stem}: the time is up; the next call goes on from here", file=sys.stderr)
    about.write(out, content)
    return content


def _in_turn(rows: list[Row]) -> Iterator[tuple[str, dict]]:
    for name, measure in rows:
        yield name, _measured(measure)


def _beside(rows: list[Row], workers: int) -> Iterator[tuple[str, dict]]:
    """Measure rows in processes of their own, which end with the generator."""
    context, deaf = multiprocessing.get_context("spawn"), (signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    with context.Pool(workers, signal.signal, deaf) as pool:  # a forked process cannot use CUDA
        yield from pool.imap_unordered(_named, rows)


def _named(row: Row) -> tuple[str, dict]:
    torch.set_num_threads(1)
    with quiet():
        return row[0], _measured(row[1])


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Context manager: leaves out what dfkd says of cells of toy size, that their teachers are at chance."""
    log = logging.getLogger("dfkd")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def _measured(measure: Callable[[], dict]) -> dict:
    try:
        return measure()
    except (clock.TimeUp, KeyboardInterrupt):
        raise
    except Exception as error:
        return {"right": False, "error": f"{type(error).__name__}: {error}"[:300]}
