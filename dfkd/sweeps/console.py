"""Logging of a process of a sweep to the terminal."""

import logging
import sys

from dfkd.machine import distributed
from dfkd.sweeps.ledger import in_a_worker, number

log = logging.getLogger("dfkd")


def start_logging() -> None:
    """Send log messages to standard error, one line each. Cells that run in parallel prefix their number in the sweep.
    Of several ranks, only the first logs."""
    if not log.handlers:
        log.addHandler(logging.StreamHandler())
        log.setLevel(logging.INFO if distributed.is_first() else logging.CRITICAL)
        log.propagate = False
    prefix = f"[{number()}] " if in_a_worker() else ""
    if prefix and sys.stderr.isatty():
        prefix = f"\r\033[K{prefix}"  # overwrites the progress line of the sweep
    log.handlers[0].setFormatter(logging.Formatter(f"{prefix}%(message)s"))
