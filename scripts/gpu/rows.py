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
    """Measure all rows that are not there yet, until the deadline. What another machine has measured is dropped. What
    was measured at another commit, or failed, is measured anew, and stays until then.

    Args:
        out: JSON file of the rows.
        only: measure only rows whose name contains this.
        workers: processes that measure, each a row at a time; their functions have to be picklable. With one, this
            process measures.
        more: what the file says beside them.

    Returns:
        the content of the file: {**machine, **more, 'rows': {name: what was measured}}. A row that fails is
        {'right': False, 'error': message}. One of another commit has this 'commit'.
    """
    here = about.machine(device)
    content = here | more | {"rows": _known(about.read(out), here)}

    def is_done(name: str) -> bool:
        return name in content["rows"] and not {"commit", "error"} & content["rows"][name].keys()

    todo = [(name, measure) for name, measure in rows if only in name and not is_done(name)]
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


def _known(content: dict | None, here: dict) -> dict[str, dict]:
    """Return the rows of a file that this machine has measured, with the commit of those of another one."""
    if content is None or any(content.get(key) != here[key] for key in ("card", "torch", "python")):
        return {}
    if content["commit"] == here["commit"]:
        return content["rows"]
    return {name: {"commit": content["commit"]} | row for name, row in content["rows"].items()}


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
