"""What a process of a sweep says on the terminal."""

import logging
import sys

from dfkd.machine import distributed
from dfkd.sweeps.ledger import in_a_worker, number

log = logging.getLogger("dfkd")


def start_logging() -> None:
    """Messages to standard error, one line each; of cells beside each other with the cell's number in the sweep. Of
    several ranks only the first has any."""
    if not log.handlers:
        log.addHandler(logging.StreamHandler())
        log.setLevel(logging.INFO if distributed.is_first() else logging.CRITICAL)
        log.propagate = False
    prefix = f"[{number()}] " if in_a_worker() else ""
    if prefix and sys.stderr.isatty():
        prefix = f"\r\033[K{prefix}"  # over the line that says how far the sweep is
    log.handlers[0].setFormatter(logging.Formatter(f"{prefix}%(message)s"))
