"""Relaunches cells after a process pool broke because one process was killed (for example, by the OOM killer)."""

import logging
import re
from collections import Counter
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher

from dfkd.errors import ConfigError
from dfkd.sweeps import ledger
from dfkd.sweeps.plan import plural

log = logging.getLogger("dfkd")
EXIT_CODES = re.compile(r"exit codes of the workers are \{(.*?)\}")  # in joblib's message
TRIES = 2  # number of broken pools in which a cell was running, after which it is launched alone


def launch(launcher: Launcher, batch: Sequence[Sequence[str]], first: int) -> list[JobReturn]:
    """Launch cells; if the process pool breaks, launch the unfinished ones again.

    It is not known which of the running cells had the killed process. All of them therefore continue from their
    checkpoints, in parallel with the waiting cells. A cell that was running when the pool broke `TRIES` times is
    launched alone, after all others. If its process is killed again, the cell has failed.

    Args:
        launcher: Hydra's launcher.
        batch: the overrides of every cell.
        first: job number that the launcher gives to the first cell (`dfkd.sweeps.ledger.launched_numbers`).

    Raises:
        ConfigError: the sweep's list was damaged, so that it no longer identifies the cells.
    """
    # The list also has cells of later batches.
    words = dict(zip(ledger.launched_numbers()[first:], batch, strict=False))
    if len(words) < len(batch):
        raise ConfigError("rows of cells that wait are gone from the sweep's list; the same command goes on with them")
    returned: list[JobReturn] = []
    deaths: Counter[int] = Counter()
    todo = chosen = list(words)
    while chosen:
        try:
            returned += launcher.launch([words[number] for number in chosen], initial_job_idx=first)
            todo = [number for number in todo if number not in chosen]
        except BrokenProcessPool as error:
            match = EXIT_CODES.search(str(error))
            reason = match[1] if match else str(error).partition("\n")[0]
            if chosen == todo[:1]:
                ledger.mark_lost(first, list(words[chosen[0]]), f"its process was killed ({reason}), for its memory?")
            status = {number: {row["status"] for row in ledger.job_rows(number)} for number in chosen}
            left = [number for number in chosen if status[number] & {"waiting", "running"}]
            running = [number for number in left if "running" in status[number]] or left
            deaths.update(running)
            if running:
                log.warning("a process was killed (%s): %s launched again", reason, plural(len(running), "cell"))
            todo = [number for number in todo if number not in chosen or number in left]
        chosen = [number for number in todo if deaths[number] < TRIES] or todo[:1]
        first = ledger.announce_again(chosen)
    return returned
