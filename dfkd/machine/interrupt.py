"""Stopping by a signal: at the next point from which the work can go on, or at once. Imports no torch.

SIGINT (Ctrl-C), SIGTERM (kill, schedulers) and SIGUSR1 (schedulers' warning) ask to stop. Where nothing can be saved
they raise KeyboardInterrupt at once. In the loops of a stage (`dfkd.resume.checkpoints`) they are `deferred`: the loop
sees `asked`, saves, and raises `Interrupted`. A second SIGINT is never deferred. Jobs of submitit have one more signal,
by which a scheduler warns of its end (`as_job`).
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
LOOK = 0.5  # seconds between two looks at whether the process that started this one is still there
SAVING = 20.0  # seconds that work has for saving once that process is gone

deferred = False  # whether somebody will look at `asked` soon
asked = False
_came: set[int] = set()  # signals
_working = False  # whether this process, a worker, is at some work
_presses = 0  # of Ctrl-C
_tell: Callable[[], None] | None = None


class Interrupted(KeyboardInterrupt):
    """The work stopped at a point from which it can go on."""


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
        tell: called when a signal asks to stop; may wait. Not for a second SIGINT, which interrupts it.
    """
    global _tell
    if threading.current_thread() is not threading.main_thread():  # of a program around us: its signals are not ours
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
    """Let processes that are started from now on begin with the signals blocked, until they listen themselves.

    Ctrl-C in a terminal reaches every process; a worker that has no work yet would die of it, and its pool with it. The
    mask is inherited from this thread; another one takes this process's own signals meanwhile.
    """
    resource_tracker.ensure_running()  # pools start it, too: later that would unblock them again
    threading.Thread(target=threading.Event().wait, name="signals", daemon=True).start()
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def end_with(parent: int) -> None:
    """Let this process, a worker of a pool, end when the process that started it does, also by SIGKILL: its work is
    asked to save and stop, and has `SAVING` seconds for that. Without it a worker would wait for more work for ever.

    Args:
        parent: the number of that process.
    """
    threading.Thread(target=_end_with, args=(parent,), name="parent", daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:  # an orphan gets another parent
        time.sleep(LOOK)
    os.kill(os.getpid(), signal.SIGTERM)
    late = time.monotonic() + SAVING
    while _working and time.monotonic() < late:
        time.sleep(0.05)
    os._exit(1)


def as_worker(work: Callable[[], T]) -> T | None:
    """Do some work in a process that works for a pool, and stay: None if a signal ended it, or had come before.

    The pool would take the death of one worker as a reason to kill the others, before they have saved; one that has
    nothing to do is ended by the pool itself, after a while.
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
        deferred, _working = True, False  # until the next work, which will see what was asked


def as_job(work: Callable[[], T], warning: int, waits: bool) -> T:
    """Do some work, that ends in `as_worker`, in a process that a scheduler may end and start again.

    Its `warning` lets the work save and stop; then what handled that signal before is called, which has the process
    queued again and ends it.

    Args:
        waits: after a SIGTERM without a warning, stay until one comes, or the end. It says that the scheduler will end
            the process, not whether it starts it again; and one that has ended by itself, it does not.
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
