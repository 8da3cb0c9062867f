"""Stopping a run by a signal: at the next point from which it can be resumed, or at once. Imports no torch.

SIGINT (Ctrl-C), SIGTERM (kill, schedulers) and SIGUSR1 (schedulers' warning) ask to stop. Where nothing can be saved
they raise KeyboardInterrupt at once. In the loops of a stage (`dfkd.resume.checkpoints`) they are deferred: the loop
reads `asked`, saves, and raises `Interrupted`. A second SIGINT is never deferred. Jobs of submitit get one more signal,
by which the scheduler warns that it will end the job (`as_job`).
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from typing import TypeVar

T = TypeVar("T")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
POLL = 0.5  # seconds between two checks whether the parent process still exists
SAVE_TIMEOUT = 20.0  # seconds that a worker has to save after its parent has ended

# State of this process: a signal reaches the process and not one of its objects, and its handler takes no arguments.
deferred = False  # whether a loop will read `asked` soon, so that a signal need not raise; set by `defer`
asked = False  # whether a signal has asked to stop
_received: set[int] = set()  # numbers of the signals so far
_has_task = False  # whether this process is a worker and runs a task now
_sigints = 0  # number of SIGINTs (Ctrl-C) so far
_tell_others: Callable[[], None] | None = None


class Interrupted(KeyboardInterrupt):
    """The run was stopped at a point from which it can be resumed."""


def defer(is_deferred: bool) -> None:
    """Set whether a signal only sets `asked`, since a loop will read that soon, or raises KeyboardInterrupt at once."""
    global deferred
    deferred = is_deferred


def stop_if_asked() -> None:
    """Raise Interrupted if a signal has asked to stop."""
    if asked:
        raise Interrupted


def _handle(number: int, _frame: object) -> None:
    global asked, _sigints
    asked = True
    _received.add(number)
    _sigints += number == signal.SIGINT
    if _sigints < 2:
        if _tell_others is not None:
            _tell_others()
        if deferred:
            return
    raise KeyboardInterrupt


@contextlib.contextmanager
def listening(tell: Callable[[], None] | None = None) -> Iterator[None]:
    """Handle the signals inside the block.

    Args:
        tell: called when a signal asks to stop. It may wait; a second SIGINT interrupts it and does not call it again.
    """
    global _tell_others
    if threading.current_thread() is not threading.main_thread():  # another program calls dfkd and handles signals
        yield
        return
    before = {number: signal.signal(number, _handle) for number in SIGNALS}
    _reset(tell)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        _reset()


def _reset(tell: Callable[[], None] | None = None) -> None:
    global deferred, asked, _sigints, _tell_others
    deferred, asked, _sigints, _tell_others = False, False, 0, tell
    _received.clear()


def shield_children() -> None:
    """Block SIGNALS in this thread, so that processes started from now on inherit the mask and begin with them blocked.

    Ctrl-C in a terminal reaches every process. It would kill a worker that has no task yet, and with it the whole pool.
    A worker unblocks the signals when its handlers are set (`as_worker`). Signals to this process are received by
    another thread, which only waits.
    """
    resource_tracker.ensure_running()  # a pool would start it later, and that would unblock the signals again
    threading.Thread(target=threading.Event().wait, name="signals", daemon=True).start()
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def end_with(parent: int, waits_for_tasks: bool = True) -> None:
    """End this process, a worker of a pool or a rank, when its parent process ends, also by SIGKILL. Otherwise a worker
    would wait forever for its next task.

    A running task is asked to save and stop, and has `SAVE_TIMEOUT` seconds for that.

    Args:
        parent: process id of the parent.
        waits_for_tasks: whether the process works only inside `as_worker`, and may end at once when it has no task.
    """
    threading.Thread(target=_end_with, args=(parent, waits_for_tasks), name="parent", daemon=True).start()


def _end_with(parent: int, waits_for_tasks: bool) -> None:
    while os.getppid() == parent:  # a process whose parent has ended gets another parent
        time.sleep(POLL)
    os.kill(os.getpid(), signal.SIGTERM)
    late = time.monotonic() + SAVE_TIMEOUT
    while (_has_task or not waits_for_tasks) and time.monotonic() < late:
        time.sleep(0.05)
    os._exit(1)


def as_worker(task: Callable[[], T]) -> T | None:
    """Call `task` in a worker process of a pool; the process survives signals.

    If one worker died, the pool would kill the others before they have saved. The pool itself ends a worker that has
    had no task for a while.

    Returns:
        the result of `task`; None if a signal stopped it, or had asked to stop before it began.
    """
    global deferred, _has_task
    deferred = _has_task = True
    for number in SIGNALS:
        signal.signal(number, _handle)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    try:
        deferred = False
        stop_if_asked()
        return task()
    except KeyboardInterrupt:
        return None
    finally:
        deferred, _has_task = True, False  # until the next task, which will read `asked`


def as_job(task: Callable[[], T], warning: int, waits: bool) -> T:
    """Call `task` in a job, a process that a scheduler may end and start again.

    The signal `warning` lets `task` save and stop. Then the handler that this signal had before is called: it requeues
    the job and ends the process.

    Args:
        task: calls `as_worker`, so that it returns after a signal.
        warning: number of the signal by which the scheduler warns that it will end the job.
        waits: whether to wait, after a SIGTERM without a warning, until the warning comes or the process is killed. A
            SIGTERM means that the scheduler will end the process, but not whether it will start it again; and it does
            not start a process again that has ended by itself.
    """
    global deferred
    deferred, requeue = True, signal.getsignal(warning)
    for number in (*SIGNALS, warning):
        signal.signal(number, _handle)
    result = task()
    while waits and signal.SIGTERM in _received and warning not in _received:
        time.sleep(0.1)
    if warning in _received:
        requeue(warning, None)
    return result
