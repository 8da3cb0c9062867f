"""Signals: at once where nothing can be saved, deferred where it can, and the second Ctrl-C at once in any case."""

import os
import signal
import subprocess
import sys
import threading

import pytest
from runner import process_environment

from dfkd.machine import interrupt


@pytest.fixture(autouse=True)
def unchanged():
    before = [signal.getsignal(number) for number in interrupt.SIGNALS]
    yield
    assert [signal.getsignal(number) for number in interrupt.SIGNALS] == before
    assert not interrupt.asked and not interrupt.deferred


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", interrupt.SIGNALS)
def test_a_signal_interrupts_at_once(number):
    with pytest.raises(KeyboardInterrupt), interrupt.listening():
        send(number)
        raise AssertionError("it went on")


@pytest.mark.parametrize("number", interrupt.SIGNALS)
def test_a_deferred_signal_is_only_noted(number):
    with interrupt.listening():
        interrupt.defer(True)
        assert not interrupt.asked
        send(number)
        assert interrupt.asked


def test_only_the_second_ctrl_c_is_not_deferred():
    with pytest.raises(KeyboardInterrupt), interrupt.listening():
        interrupt.defer(True)
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGTERM):
            send(number)
        send(signal.SIGINT)
        raise AssertionError("it went on")


def test_who_listens_may_tell_others_and_the_second_ctrl_c_interrupts_that_too():
    told = []

    def tell() -> None:
        told.append("first")
        send(signal.SIGINT)
        raise AssertionError("it went on")

    with pytest.raises(KeyboardInterrupt), interrupt.listening(tell):
        interrupt.defer(True)
        send(signal.SIGINT)
    assert told == ["first"]


def test_a_worker_stays_when_its_work_is_interrupted():
    before = {number: signal.getsignal(number) for number in interrupt.SIGNALS}
    try:
        assert interrupt.as_worker(lambda: 5) == 5
        assert interrupt.as_worker(lambda: send(signal.SIGTERM) or 5) is None
        send(signal.SIGTERM)  # between two cells: nothing to interrupt
        assert interrupt.as_worker(lambda: 5) is None  # it has not forgotten
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        interrupt._reset()


def test_another_thread_leaves_the_signals_to_the_program_around_it():
    seen = []

    def run() -> None:
        with interrupt.listening():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGTERM)]


@pytest.fixture
def scheduled():
    """Signals as submitit sets them in a job; yields what was called."""
    numbers = (*interrupt.SIGNALS, signal.SIGUSR2)
    before, called = {number: signal.getsignal(number) for number in numbers}, []
    signal.signal(signal.SIGUSR2, lambda number, frame: called.append(number))
    yield called
    for number, handler in before.items():
        signal.signal(number, handler)
    interrupt._reset()


def as_job(work, waits=True):
    return interrupt.as_job(lambda: interrupt.as_worker(work), signal.SIGUSR2, waits)


def test_a_job_that_is_warned_stops_its_work_and_is_queued_again(scheduled):
    assert as_job(lambda: send(signal.SIGUSR2) or 5) is None and scheduled == [signal.SIGUSR2]


def test_a_job_that_nobody_stops_gives_its_result(scheduled):
    assert as_job(lambda: 5) == 5 and scheduled == []


def test_a_job_that_is_asked_to_stop_stays_for_the_warning(scheduled):
    threading.Timer(0.5, send, (signal.SIGUSR2,)).start()
    assert as_job(lambda: send(signal.SIGTERM) or 5) is None and scheduled == [signal.SIGUSR2]


def test_a_local_job_that_is_asked_to_stop_ends(scheduled):
    assert as_job(lambda: send(signal.SIGTERM) or 5, waits=False) is None and scheduled == []


def test_a_warning_that_comes_before_the_work_is_not_lost(scheduled):
    interrupt.as_job(lambda: send(signal.SIGUSR2) or interrupt.as_worker(pytest.fail), signal.SIGUSR2, True)
    assert scheduled == [signal.SIGUSR2]


PARENT = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", sys.argv[1]])
time.sleep(60)
"""
WORKER = """
import os, time
from dfkd.machine import interrupt

interrupt.POLL, interrupt.SAVE_TIMEOUT = 0.02, SAVING
interrupt.end_with(os.getppid(), TASKS)


def work():
    print("at work", flush=True)
    interrupt.defer(True)
    while not (interrupt.asked and OBEYS):
        time.sleep(0.01)
    print("saved", flush=True)


BEFORE
print("idle", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(
    ("before", "tasks", "saving", "obeys", "said"),
    [
        ("", True, 10, True, "idle\n"),  # without work so far
        ("interrupt.as_worker(lambda: None)", True, 10, True, "idle\n"),  # between two works
        ("interrupt.as_worker(work)", True, 10, True, "at work\nsaved\n"),
        ("interrupt.as_worker(work)", True, 0.1, False, "at work\n"),
        ("with interrupt.listening(): work(); os._exit(0)", False, 10, True, "at work\nsaved\n"),  # a rank
        ("with interrupt.listening(): work()", False, 0.1, False, "at work\n"),
    ],
)
def test_a_worker_or_rank_ends_with_its_parent_and_saves_before(before, tasks, saving, obeys, said):
    worker = WORKER.replace("SAVING\n", f"{saving}\n").replace("OBEYS", str(obeys)).replace("TASKS", str(tasks))
    worker = worker.replace("BEFORE", before)
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, worker], stdout=subprocess.PIPE, text=True, env=process_environment()
    ) as parent:
        first = parent.stdout.readline()
        parent.kill()
        rest = parent.stdout.read()  # until nobody is left who could write
    assert (first + rest).removesuffix("idle\n") == said.removesuffix("idle\n")
