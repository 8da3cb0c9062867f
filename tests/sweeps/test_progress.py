"""How far a sweep is, in one line."""

import io
import logging
import os
import sys
import time

import pytest

from dfkd.sweeps import ledger
from dfkd.sweeps.progress import Progress, in_words, with_progress

CACHED = {"status": "done", "cached": True}


def rows(*statuses: str | dict) -> list[dict]:
    return [status if isinstance(status, dict) else {"status": status} for status in statuses]


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        (rows("waiting", "waiting"), "sweep: 0 of 2 cells"),
        (rows("running", "running", "waiting"), "sweep: 0 of 3 cells, 2 running"),
        (rows(CACHED, "running", "waiting"), "sweep: 1 of 3 cells (1 before), 1 running"),  # no time to go by
        (rows(CACHED, "done", "running", "waiting"), "sweep: 2 of 4 cells (1 before), 1 running, 04:00 left"),
        (rows("done", "failed", "running"), "sweep: 2 of 3 cells (1 failed), 1 running, 01:00 left"),
        (rows("done", CACHED, "failed"), "sweep: 3 of 3 cells (1 before, 1 failed)"),
    ],
)
def test_what_is_done_failed_running_and_left(cells, words):
    assert in_words(cells, 120.0) == words


@pytest.fixture
def listed(tmp_path, monkeypatch):
    """A sweep's list of two cells."""
    monkeypatch.setenv(ledger.LIST, str(tmp_path / "list.jsonl"))
    for number in range(2):
        ledger.append({"number": number, "status": "waiting"})


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def wait_for(condition) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_without_a_terminal_a_line_is_logged_when_a_cell_has_ended(listed, caplog):
    with caplog.at_level(logging.INFO, "dfkd"), Progress(every=0.01):
        ledger.append({"number": 0, "status": "running"})
        time.sleep(0.05)
        ledger.append({"number": 0, "status": "done"})
        wait_for(lambda: caplog.messages)
        ledger.append({"number": 1, "status": "failed"})
    assert len(caplog.messages) == 2 and caplog.messages[0].startswith("sweep: 1 of 2 cells, ")
    assert caplog.messages[1] == "sweep: 2 of 2 cells (1 failed)"


def test_on_a_terminal_there_is_one_line_below_the_messages(listed, monkeypatch):
    screen, log = Screen(), logging.getLogger("dfkd")
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(os, "get_terminal_size", lambda *_: os.terminal_size((100, 20)))
    monkeypatch.setattr(log, "handlers", [logging.StreamHandler(screen)])
    monkeypatch.setattr(log, "propagate", False)
    with Progress(every=0.01):
        ledger.append({"number": 0, "status": "running"})
        wait_for(lambda: "sweep: 0 of 2 cells, 1 running" in screen.getvalue())
        log.warning("a message")
    assert (
        "\n" in screen.getvalue() and screen.getvalue().count("\n") == 1
    )  # after the message: the line is overwritten
    assert "a message\n" in screen.getvalue() and not screen.getvalue().rpartition("\r")[2].strip()
    assert [type(handler) for handler in log.handlers] == [logging.StreamHandler]


def test_what_takes_long_says_how_far_it_is_after_a_second(caplog, monkeypatch):
    clock = iter((0.0, 0.1, 1.2, 5.0, 11.3, 12.0))
    monkeypatch.setattr("dfkd.sweeps.progress.time.monotonic", lambda: next(clock))
    with caplog.at_level(logging.INFO, "dfkd"):
        assert list(with_progress(range(5), 5, "composed")) == [0, 1, 2, 3, 4]
    assert caplog.messages == ["1 of 5 cells composed", "3 of 5 cells composed"]


def test_what_is_quick_says_nothing(caplog):
    with caplog.at_level(logging.INFO, "dfkd"):
        assert list(with_progress("abc", 3, "composed")) == ["a", "b", "c"]
    assert caplog.messages == []
