"""A launcher whose pool of processes breaks when one of them is killed, for its memory say: no other cell is lost."""

import logging
import re
from collections import Counter
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher

from dfkd.errors import ConfigError
from dfkd.sweeps import ledger
from dfkd.sweeps.plan import many

log = logging.getLogger("dfkd")
EXIT_CODES = re.compile(r"exit codes of the workers are \{(.*?)\}")  # in joblib's words
TRIES = 2  # ends of the pool that a cell may be running at, before it is launched by itself


def launch(launcher: Launcher, batch: Sequence[Sequence[str]], first: int) -> list[JobReturn]:
    """Launch cells, and again those that were not through when the pool broke.

    Nobody tells which of the running cells it was whose process was killed: they go on from their checkpoints, beside
    the others. One that was running at `TRIES` ends is launched when the others are through, by itself: if its process
    is killed then, too, it has failed.

    Args:
        batch: the overrides of every cell.
        first: what the launcher is to call the first of them (`dfkd.sweeps.ledger.launched`).

    Raises:
        ConfigError: the sweep's list was damaged, and does not say any more which cells these are.
    """
    words = dict(zip(ledger.launched()[first:], batch, strict=False))  # later batches wait, too
    if len(words) < len(batch):
        raise ConfigError("rows of cells that wait are gone from the sweep's list; the same command goes on with them")
    returned: list[JobReturn] = []
    ends: Counter[int] = Counter()
    todo = chosen = list(words)
    while chosen:
        try:
            returned += launcher.launch([words[number] for number in chosen], initial_job_idx=first)
            todo = [number for number in todo if number not in chosen]
        except BrokenProcessPool as error:
            found = EXIT_CODES.search(str(error))
            reason = found[1] if found else str(error).partition("\n")[0]
            if chosen == todo[:1]:
                ledger.lost(first, list(words[chosen[0]]), f"its process was killed ({reason}), for its memory?")
            status = {number: {row["status"] for row in ledger.of_job(number)} for number in chosen}
            left = [number for number in chosen if status[number] & {"waiting", "running"}]
            running = [number for number in left if "running" in status[number]] or left
            ends.update(running)
            if running:
                log.warning("a process was killed (%s): %s launched again", reason, many(len(running), "cell"))
            todo = [number for number in todo if number not in chosen or number in left]
        chosen = [number for number in todo if ends[number] < TRIES] or todo[:1]
        first = ledger.announce_again(chosen)
    return returned
