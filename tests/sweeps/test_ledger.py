"""Who is asked to stop when a sweep is."""

import os
import signal
import subprocess
import sys

import pytest

from dfkd.machine.processes import start_time
from dfkd.sweeps import ledger


@pytest.fixture
def sleepers(tmp_path, monkeypatch):
    """Two processes that sleep, and a list of a sweep."""
    monkeypatch.setenv(ledger.LIST, str(tmp_path / "list.jsonl"))
    monkeypatch.setenv(ledger.OWNER, ledger.process_name())
    processes = [subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) for _ in range(2)]
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def note(number: int, process: int, start: str | None, status: str = "running") -> None:
    ledger.append(
        {"number": number, "folder": "", "arguments": [], "status": status} | {"process": process, "started": start}
    )


def test_a_sweep_that_is_stopped_signals_its_own_processes_only(sleepers, monkeypatch):
    monkeypatch.setattr(ledger, "LAST_WORD", 0)
    mine, other = sleepers
    note(0, mine.pid, start_time(mine.pid))
    note(1, other.pid, "1")  # a worker of ours had that number before
    note(2, os.getpid(), start_time(os.getpid()), "done")
    ledger.append(
        {"number": 3, "folder": "", "arguments": [], "status": "running", "process": other.pid}
    )  # an old list
    ledger.stop_workers()
    assert mine.wait(10) == -signal.SIGTERM and other.poll() is None


def test_a_row_tells_a_process_from_a_later_one_of_its_number(monkeypatch):
    monkeypatch.delenv("SUBMITIT_EXECUTOR", raising=False)
    assert ledger.this_process() == {"process": os.getpid(), "started": start_time(os.getpid())}
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "local")
    assert ledger.this_process()["job"] == os.getpid()
