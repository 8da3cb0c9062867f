"""One cell on several processes, the ranks that `torchrun` has started. With one process all functions are trivial.

Only the first rank (rank 0) decides, writes files and prints. The others follow it through the stages, and take part in
those that are made inside a `together` block: there all ranks run the same loops at the same time, and each computes
its share. Outside of such a block a rank computes as if it were the only one.

torch is imported only when the ranks communicate; the number of a rank is known before.
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
# Timeouts, for a rank that hangs. torchrun notices a rank that has died, and ends the others at once.
STEP_TIMEOUT = timedelta(minutes=30)  # for a step that all ranks take
ALONE_TIMEOUT = timedelta(days=1)  # while the first rank works alone: it may wait for another process's lock
EXCHANGE_EVERY = 0.5  # seconds between two exchanges about signals; torchrun sends SIGKILL 30 s after its first signal

# State of this process, as torch.distributed's own groups are. Loss functions, samplers and networks ask for the size
# of the team; as an argument it would have to pass through every one of their signatures.
_together = False  # whether this process is in a `together` block
_slow_group: Any = None  # the process group with the long timeout (ALONE_TIMEOUT)


def ranks() -> int:
    """Return the number of processes of this run."""
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def rank() -> int:
    """Return the number of this process among the ranks, from 0."""
    return int(os.environ["RANK"]) if ranks() > 1 else 0


def local_rank() -> int:
    """Return the number of this process among the ranks of its machine, from 0; also the number of its CUDA device."""
    return int(os.environ["LOCAL_RANK"]) if ranks() > 1 else 0


def is_first() -> bool:
    return rank() == 0


def team_size() -> int:
    """Return the number of ranks that share the current computation: all of them in a `together` block, else 1."""
    return ranks() if _together else 1


@contextlib.contextmanager
def together(shared: bool = True) -> Iterator[None]:
    """Inside the block all ranks share the computation if `shared`; otherwise each rank computes on its own."""
    global _together
    before, _together = _together, shared and ranks() > 1
    try:
        yield
    finally:
        _together = before


def alone() -> contextlib.AbstractContextManager:
    """Inside the block this rank computes on its own, also within a `together` block."""
    return together(False)


def rank_slice(count: int) -> slice:
    """Return the slice of a batch of `count` images that this rank computes.

    Raises:
        ValueError: `count` is not divisible by the number of ranks in the team.
    """
    size, rest = divmod(count, team_size())
    if rest:
        raise ValueError(f"a batch of {count} images cannot be shared evenly by {team_size()} ranks")
    first = rank() * size if team_size() > 1 else 0
    return slice(first, first + size)


def start() -> None:
    """Connect this process to the other ranks (init_process_group), and let it end with torchrun, its parent; does
    nothing with one rank."""
    global _slow_group
    if ranks() == 1 or _slow_group is not None:
        return
    interrupt.end_with(os.getppid(), waits_for_tasks=False)
    import torch
    import torch.distributed as dist

    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, timeout=STEP_TIMEOUT, store=_store(), rank=rank(), world_size=ranks())
    _slow_group = dist.new_group(backend="gloo", timeout=ALONE_TIMEOUT)


def stop() -> None:
    """Wait for the other ranks, then disconnect from them."""
    global _slow_group
    if _slow_group is not None:
        barrier()
        with _collective() as dist:
            dist.destroy_process_group()
        _slow_group = None


def barrier() -> None:
    """Wait until every rank has reached this call."""
    if ranks() > 1:
        with _collective() as dist:
            dist.barrier(group=_slow_group)


@contextlib.contextmanager
def first_local_rank_first() -> Iterator[None]:
    """Run the block on one rank of every machine first, and then on its other ranks: the first one may download data
    that all need."""
    if local_rank() > 0:
        barrier()
    yield
    if local_rank() == 0:
        barrier()


def broadcast(value: T) -> T:
    """Return the first rank's `value`, on all ranks."""
    if ranks() == 1:
        return value
    values = [value]
    with _collective() as dist:
        dist.broadcast_object_list(values, src=0, group=_slow_group)
    return values[0]


def on_first_rank(make: Callable[[], T]) -> T:
    """Call `make` on the first rank only, and return its result on all ranks."""
    return broadcast(make() if is_first() else None)


def gather(value: T) -> list[T]:
    """Return the values of all ranks of the team in their order; an empty list on other ranks than the first."""
    if team_size() == 1:
        return [value]
    values = [None] * ranks() if is_first() else None
    with _collective() as dist:
        dist.gather_object(value, values, dst=0, group=_slow_group)
    return values or []


def mean(values: T) -> T:
    """Return the mean of a tensor over the ranks of the team, on all of them."""
    if team_size() == 1:
        return values
    values = values / team_size()
    with _collective() as dist:
        dist.all_reduce(values)
    return values


class StopSign:
    """Whether a signal has asked any rank to stop. All ranks get True in the same call, so they stop at the same step.

    The ranks exchange their answers only about every `EXCHANGE_EVERY` seconds; the calls between two exchanges return
    False. The number of calls between them is adapted to the measured time, and is the same on all ranks.
    """

    def __init__(self):
        self.pace = self.left = 1
        self.since = time.monotonic()

    def __call__(self, look: bool = False) -> bool:
        """Return whether to stop now.

        Args:
            look: whether to exchange the answers in this call, without waiting for the next turn. It must be the same
                on all ranks.
        """
        self.left -= 1
        if self.left > 0 and not look:
            return False
        import torch

        spent = max(time.monotonic() - self.since, 1e-6)
        pace = max(1, min(int(self.pace * EXCHANGE_EVERY / spent), 2 * self.pace))
        lowest = torch.tensor([-int(interrupt.asked), pace])
        with _collective() as dist:
            dist.all_reduce(lowest, dist.ReduceOp.MIN, group=_slow_group)
        asked, self.pace = lowest.tolist()
        self.left, self.since = self.pace, time.monotonic()
        return bool(asked)


class RankLost(Exception):
    """Another rank has ended without leaving an error."""

    def __init__(self):
        super().__init__("another rank ended without a word: killed, or out of memory? torchrun says below which one")


@contextlib.contextmanager
def _collective() -> Iterator[Any]:
    """Yield torch.distributed, for a collective operation inside the block.

    Raises:
        RankLost: the operation fails because a rank is missing.
    """
    import torch.distributed as dist

    try:
        yield dist
    except RuntimeError as error:
        raise RankLost from error


class FailedElsewhere(Exception):
    """Another rank was the first to fail; that rank reports its error itself.

    Attributes:
        traceback: text of the traceback on the other rank.
    """

    def __init__(self, failure: dict):
        super().__init__(f"rank {failure['rank']}: {failure['error']}")
        self.traceback = failure["traceback"]


def original_error(error: BaseException) -> BaseException:
    """Return the original cause of an error on this rank. When one rank fails or is stopped, the others fail as a
    consequence.

    Returns:
        `FailedElsewhere` if another rank was the first to fail, Interrupted after a signal, else the error itself.
    """
    if ranks() == 1 or isinstance(error, FailedElsewhere):
        return error
    first = _first_failure()
    if first is not None:
        return error if first["rank"] == rank() else FailedElsewhere(first)
    return interrupt.Interrupted() if interrupt.asked else error


@contextlib.contextmanager
def failing_together() -> Iterator[None]:
    """Raise the first error of all ranks unchanged on the rank where it happened, and `FailedElsewhere` on the others.

    The context manager is meant for the whole run of a rank.
    """
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        original = original_error(error)
        if ranks() > 1 and isinstance(original, Exception) and not isinstance(original, FailedElsewhere):
            _first_failure(error)
            original = original_error(error)
        if original is error:
            raise
        raise original from error


@functools.cache
def _store() -> Any:
    """Return torchrun's key-value store, through which ranks leave messages. It lives longer than the ranks."""
    from torch.distributed.rendezvous import rendezvous

    return next(rendezvous("env://"))[0]


def _first_failure(own_error: BaseException | None = None) -> dict | None:
    """Return the first failure of any rank, as a dict with `rank`, `error` and `traceback`; None if there is none.

    Args:
        own_error: an error of this rank; recorded as the first failure if there is none before it.
    """
    key, text = "dfkd/failure", None
    if own_error is not None:
        failure = {"rank": rank(), "error": f"{type(own_error).__name__}: {own_error}"}
        text = json.dumps(failure | {"traceback": "".join(traceback.format_exception(own_error))})
    try:
        if text is not None:
            _store().compare_set(key, "", text)
        return json.loads(_store().get(key)) if _store().check([key]) else None
    except Exception:  # torchrun has ended too, and its store with it
        return None
