"""A process is signalled only while it is the one that was meant, not whoever has its number now."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

from dfkd.machine.processes import send_signal, start_time


@pytest.fixture
def sleeper():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


def test_a_process_is_told_from_another_one(sleeper):
    assert start_time(os.getpid()) == start_time(os.getpid()) != start_time(sleeper.pid)
    sleeper.kill()
    sleeper.wait()
    assert start_time(sleeper.pid) is None


def test_without_proc_the_system_is_asked(sleeper):
    there = Path.exists
    with mock.patch.object(Path, "exists", lambda self: not str(self).startswith("/proc") and there(self)):
        assert start_time(sleeper.pid) and start_time(2**22 + 1) is None


def test_only_the_process_that_was_meant_gets_the_signal(sleeper):
    assert not send_signal(sleeper.pid, None, signal.SIGTERM)
    assert not send_signal(sleeper.pid, f"{start_time(sleeper.pid)}0", signal.SIGTERM) and sleeper.poll() is None
    assert send_signal(sleeper.pid, start_time(sleeper.pid), signal.SIGTERM)
    assert sleeper.wait(10) == -signal.SIGTERM
    assert not send_signal(sleeper.pid, "0", signal.SIGTERM)
