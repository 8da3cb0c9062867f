"""One cell on several processes, the ranks that `torchrun` has started. In a plain run nothing here does anything.

Only the first rank decides, writes and speaks. The others follow it through the stages, and take part in those that
are made `together`: there all ranks go through the same loops at the same time, and each does its share. Elsewhere a
rank computes as if it were the only one.

Imports torch only when ranks meet: who is the first is known before.
"""

import contextlib
import functools
import json
import os
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

from dfkd.machine import interrupt

T = TypeVar("T")
# A rank that has died is noticed at once (torchrun ends the others); this is for one that hangs.
STEP = timedelta(minutes=30)  # at a step that all take
ALONE = timedelta(days=1)  # while the first does what it does alone: it may wait for another process's lock
LOOK = 0.5  # seconds between two looks at whether a signal has come to any rank: torchrun kills 30 s after its own

_together = False
_patient: Any = None  # the process group for what may take long


def ranks() -> int:
    """How many processes this run has."""
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def rank() -> int:
    """Which of them this one is, from 0."""
    return int(os.environ["RANK"]) if ranks() > 1 else 0


def local_rank() -> int:
    """Which of those on this machine it is: the number of its device."""
    return int(os.environ["LOCAL_RANK"]) if ranks() > 1 else 0


def is_first() -> bool:
    return rank() == 0


def team() -> int:
    """How many ranks share what is computed just now."""
    return ranks() if _together else 1


@contextlib.contextmanager
def together(yes: bool = True) -> Iterator[None]:
    """Inside the block all ranks share the work (if `yes`)."""
    global _together
    before, _together = _together, yes and ranks() > 1
    try:
        yield
    finally:
        _together = before


def alone() -> contextlib.AbstractContextManager:
    """Inside the block this rank works for itself again."""
    return together(False)


def share(count: int) -> slice:
    """Which of `count` images of a batch are this rank's.

    Raises:
        ValueError: they cannot be shared evenly.
    """
    size, rest = divmod(count, team())
    if rest:
        raise ValueError(f"a batch of {count} images cannot be shared evenly by {team()} ranks")
    first = rank() * size if team() > 1 else 0
    return slice(first, first + size)


def start() -> None:
    """Connect this process to the other ranks; with one rank it does nothing."""
    global _patient
    if ranks() == 1 or _patient is not None:
        return
    import torch
    import torch.distributed as dist

    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, timeout=STEP, store=_store(), rank=rank(), world_size=ranks())
    _patient = dist.new_group(backend="gloo", timeout=ALONE)


def stop() -> None:
    """Wait for the other ranks, and part."""
    global _patient
    if _patient is not None:
        barrier()
        with _meeting() as dist:
            dist.destroy_process_group()
        _patient = None


def barrier() -> None:
    """Wait until every rank has come to this call."""
    if ranks() > 1:
        with _meeting() as dist:
            dist.barrier(group=_patient)


@contextlib.contextmanager
def one_at_first() -> Iterator[None]:
    """Let one rank of every machine go through the block before the others: it may download what all need."""
    if local_rank() > 0:
        barrier()
    yield
    if local_rank() == 0:
        barrier()


def broadcast(value: T) -> T:
    """What the first rank gives, on all of them."""
    if ranks() == 1:
        return value
    box = [value]
    with _meeting() as dist:
        dist.broadcast_object_list(box, src=0, group=_patient)
    return box[0]


def by_first(make: Callable[[], T]) -> T:
    """What `make` gives on the first rank, where alone it is called, on all of them."""
    return broadcast(make() if is_first() else None)


def gather(value: T) -> list[T]:
    """The values of all ranks of the team in their order, on the first; nothing on the others."""
    if team() == 1:
        return [value]
    values = [None] * ranks() if is_first() else None
    with _meeting() as dist:
        dist.gather_object(value, values, dst=0, group=_patient)
    return values or []


def mean(values: T) -> T:
    """The mean of the team's tensors, on all ranks."""
    if team() == 1:
        return values
    values = values / team()
    with _meeting() as dist:
        dist.all_reduce(values)
    return values


class StopSign:
    """Whether a signal has asked any rank to stop: an answer that all ranks get in the same call.

    Calls are counted, and the ranks look at each other's only about every `LOOK` seconds.
    """

    def __init__(self):
        self.pace = self.left = 1
        self.since = time.monotonic()

    def __call__(self, look: bool = False) -> bool:
        """Args: look: now, however many calls are left; the same on all ranks."""
        self.left -= 1
        if self.left > 0 and not look:
            return False
        import torch

        spent = max(time.monotonic() - self.since, 1e-6)
        pace = max(1, min(int(self.pace * LOOK / spent), 2 * self.pace))
        lowest = torch.tensor([-int(interrupt.asked), pace])
        with _meeting() as dist:
            dist.all_reduce(lowest, dist.ReduceOp.MIN, group=_patient)
        asked, self.pace = lowest.tolist()
        self.left, self.since = self.pace, time.monotonic()
        return bool(asked)


class RankLost(Exception):
    """Another rank is gone, and has not said why."""

    def __init__(self):
        super().__init__("another rank ended without a word: killed, or out of memory? torchrun says below which one")


@contextlib.contextmanager
def _meeting() -> Iterator[Any]:
    """torch.distributed, for what all ranks do at the same time.

    Raises:
        RankLost: one does not come.
    """
    import torch.distributed as dist

    try:
        yield dist
    except RuntimeError as error:
        raise RankLost from error


class FailedElsewhere(Exception):
    """Another rank has failed first, and says so itself.

    Attributes:
        traceback: of its error.
    """

    def __init__(self, said: dict):
        super().__init__(f"rank {said['rank']}: {said['error']}")
        self.traceback = said["traceback"]


def reason(error: BaseException) -> BaseException:
    """What an error of this rank comes from: the ranks break each other off when one fails or is stopped.

    Returns:
        `FailedElsewhere` where another rank was the first to fail, Interrupted after a signal, else the error.
    """
    if ranks() == 1 or isinstance(error, FailedElsewhere):
        return error
    first = _first_failure()
    if first is not None:
        return error if first["rank"] == rank() else FailedElsewhere(first)
    return interrupt.Interrupted() if interrupt.asked else error


@contextlib.contextmanager
def failing_together() -> Iterator[None]:
    """Of the errors that end the ranks, let the first one pass, on the rank where it was; the others see
    `FailedElsewhere`."""
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        found = reason(error)
        if ranks() > 1 and isinstance(found, Exception) and not isinstance(found, FailedElsewhere):
            _first_failure(error)
            found = reason(error)
        if found is error:
            raise
        raise found from error


@functools.cache
def _store() -> Any:
    """Where torchrun lets the ranks leave notes; it outlives them."""
    from torch.distributed.rendezvous import rendezvous

    return next(rendezvous("env://"))[0]


def _first_failure(mine: BaseException | None = None) -> dict | None:
    """Which rank was the first to fail, and how: `mine`, if it is given and there was none."""
    key, text = "dfkd/failure", None
    if mine is not None:
        said = {"rank": rank(), "error": f"{type(mine).__name__}: {mine}"}
        text = json.dumps(said | {"traceback": "".join(traceback.format_exception(mine))})
    try:
        if text is not None:
            _store().compare_set(key, "", text)
        return json.loads(_store().get(key)) if _store().check([key]) else None
    except Exception:  # torchrun itself is gone: nobody can be asked
        return None
