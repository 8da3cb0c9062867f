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
LOOK = 0.5  # seconds between two checks whether the parent process still exists
SAVING = 20.0  # seconds that a worker has to save after its parent has ended

deferred = False  # whether a loop will read `asked` soon, so that a signal need not raise
asked = False  # whether a signal has asked to stop
_came: set[int] = set()  # numbers of the signals so far
_working = False  # whether this process is a worker and runs a task now
_presses = 0  # number of SIGINTs (Ctrl-C) so far
_tell: Callable[[], None] | None = None


class Interrupted(KeyboardInterrupt):
    """The run was stopped at a point from which it can be resumed."""


def stop_if_asked() -> None:
    """Raise Interrupted if a signal has asked to stop."""
    if asked:
        raise Interrupted


def _handle(number: int, _frame: object) -> None:
    global asked, _presses
    asked = True
    _came.add(number)
    _presses += number == signal.SIGINT
    if _presses < 2:
        if _tell is not None:
            _tell()
        if deferred:
            return
    raise KeyboardInterrupt


@contextlib.contextmanager
def listening(tell: Callable[[], None] | None = None) -> Iterator[None]:
    """Handle the signals inside the block.

    Args:
        tell: called when a signal asks to stop. It may wait; a second SIGINT interrupts it and does not call it again.
    """
    global _tell
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
    global deferred, asked, _presses, _tell
    deferred, asked, _presses, _tell = False, False, 0, tell
    _came.clear()


def shield_children() -> None:
    """Block SIGNALS in this thread, so that processes started from now on inherit the mask and begin with them blocked.

    Ctrl-C in a terminal reaches every process. It would kill a worker that has no task yet, and with it the whole pool.
    A worker unblocks the signals when its handlers are set (`as_worker`). Signals to this process are received by
    another thread, which only waits.
    """
    resource_tracker.ensure_running()  # a pool would start it later, and that would unblock the signals again
    threading.Thread(target=threading.Event().wait, name="signals", daemon=True).start()
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def end_with(parent: int, has_tasks: bool = True) -> None:
    """End this process, a worker of a pool or a rank, when its parent process ends, also by SIGKILL. Otherwise a worker
    would wait forever for its next task.

    Running work is asked to save and stop, and has `SAVING` seconds for that.

    Args:
        parent: process id of the parent.
        has_tasks: whether the process works only inside `as_worker`, and otherwise may end at once.
    """
    threading.Thread(target=_end_with, args=(parent, has_tasks), name="parent", daemon=True).start()


def _end_with(parent: int, has_tasks: bool) -> None:
    while os.getppid() == parent:  # a process whose parent has ended gets another parent
        time.sleep(LOOK)
    os.kill(os.getpid(), signal.SIGTERM)
    late = time.monotonic() + SAVING
    while (_working or not has_tasks) and time.monotonic() < late:
        time.sleep(0.05)
    os._exit(1)


def as_worker(work: Callable[[], T]) -> T | None:
    """Call `work` in a worker process of a pool; the process survives signals.

    If one worker died, the pool would kill the others before they have saved. The pool itself ends a worker that has
    had no task for a while.

    Returns:
        the result of `work`; None if a signal stopped it, or had asked to stop before it began.
    """
    global deferred, _working
    deferred = _working = True
    for number in SIGNALS:
        signal.signal(number, _handle)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    try:
        deferred = False
        stop_if_asked()
        return work()
    except KeyboardInterrupt:
        return None
    finally:
        deferred, _working = True, False  # until the next task, which will read `asked`


def as_job(work: Callable[[], T], warning: int, waits: bool) -> T:
    """Call `work` in a job, a process that a scheduler may end and start again.

    The signal `warning` lets `work` save and stop. Then the handler that this signal had before is called: it requeues
    the job and ends the process.

    Args:
        work: the task; it calls `as_worker`, so it returns after a signal.
        warning: number of the signal by which the scheduler warns that it will end the job.
        waits: whether to wait, after a SIGTERM without a warning, until the warning comes or the process is killed. A
            SIGTERM means that the scheduler will end the process, but not whether it will start it again; and it does
            not start a process again that has ended by itself.
    """
    global deferred
    deferred, requeue = True, signal.getsignal(warning)
    for number in (*SIGNALS, warning):
        signal.signal(number, _handle)
    result = work()
    while waits and signal.SIGTERM in _came and warning not in _came:
        time.sleep(0.1)
    if warning in _came:
        requeue(warning, None)
    return result
