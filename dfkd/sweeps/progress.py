"""The progress of a sweep: one updated line on a terminal, otherwise a log line whenever a cell has ended."""

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from dfkd.sweeps.ledger import last_rows

log = logging.getLogger("dfkd")
Thing = TypeVar("Thing")


class Progress(contextlib.ExitStack):
    """Context manager: shows the progress of a sweep from its list, while cells run here or in other processes.

    Args:
        every: seconds between two updates.
    """

    def __init__(self, every: float = 1.0):
        super().__init__()
        self.every = every
        self.ended, self.stop, self.bar = 0, threading.Event(), None

    def __enter__(self) -> "Progress":
        self.began = time.monotonic()
        if sys.stderr.isatty():
            self.enter_context(logging_redirect_tqdm([log]))  # prints messages above the progress line
            self.bar = self.enter_context(tqdm(bar_format="{desc}", leave=False, dynamic_ncols=True))
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()
        self.callback(self.thread.join)
        self.callback(self.stop.set)
        return self

    def watch(self) -> None:
        """Show the progress every `every` seconds, until the sweep has ended."""
        while not self.stop.wait(self.every):
            self.show()
        self.show()

    def show(self) -> None:
        rows = last_rows()
        ended = sum(row["status"] in ("done", "failed") and not row.get("cached") for row in rows)
        text = in_words(rows, time.monotonic() - self.began)
        if self.bar is not None:
            self.bar.set_description_str(text)
        elif ended != self.ended:
            log.info("%s", text)
        self.ended = ended


def in_words(rows: list[dict], seconds: float) -> str:
    """Format the progress, such as 'sweep: 5 of 9 cells (3 before, 1 failed), 2 running, 02:10 left'.

    Args:
        rows: the last row of each cell.
        seconds: seconds since the first launch. The remaining time assumes that the other cells end at the same rate.
    """
    cached = sum(bool(row.get("cached")) for row in rows)
    count = {status: sum(row["status"] == status for row in rows) for status in ("done", "failed", "running")}
    ended = count["done"] + count["failed"]
    notes = [f"{n} {word}" for word, n in (("before", cached), ("failed", count["failed"])) if n]
    text = f"sweep: {ended} of {len(rows)} cells" + (f" ({', '.join(notes)})" if notes else "")
    if count["running"]:
        text += f", {count['running']} running"
    if cached < ended < len(rows):
        text += f", {tqdm.format_interval(seconds / (ended - cached) * (len(rows) - ended))} left"
    return text


def with_progress(things: Iterable[Thing], total: int, action: str, every: float = 10.0) -> Iterator[Thing]:
    """Yield the cells of a sweep, and show the progress if the loop takes longer than a second: on a terminal in one
    updated line, otherwise in lines of the log.

    Args:
        action: participle of what the loop does with a cell, for the text: 'composed', 'planned'.
        every: seconds between two lines of the log; the first comes after one second.
    """
    began = logged = time.monotonic()
    on_terminal = sys.stderr.isatty()
    with tqdm(total=total, desc=action, unit=" cells", delay=1, leave=False, disable=not on_terminal) as bar:
        for number, thing in enumerate(things):
            now = time.monotonic()
            if not on_terminal and now - logged >= (1 if logged == began else every):
                logged = now
                log.info("%d of %d cells %s", number, total, action)
            yield thing
            bar.update()
