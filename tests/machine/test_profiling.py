"""runtime.profile=true: files beside the result, and the same result."""

import gzip
import json
import re

import pytest
import torch
from runner import make_cell

from dfkd.machine import clock, profiling
from dfkd.machine.profiling import ProfileWindow, phase_clock, profiled
from dfkd.run.run_cell import run_cell

DFQ = ("synthesizer=dfq", "synthesizer.rounds=3")
CPU = torch.device("cpu")


def test_every_stage_that_is_made_says_where_its_time_went(tmp_path, caplog):
    caplog.set_level("INFO", "dfkd")
    cell = make_cell(tmp_path, *DFQ, "runtime.profile=true")
    result = run_cell(cell)
    for stage in ("teacher", "judgement", "student"):
        assert "aten::" in (cell.folder / f"profile_{stage}.txt").read_text()
        assert f"  profile  {stage}: " in caplog.text
    with gzip.open(cell.folder / "profile_student.json.gz") as timeline:
        names = {event.get("name") for event in json.load(timeline)["traceEvents"]}
    assert {"synthesis", "distill", "evaluate"} <= names

    plain = make_cell(tmp_path / "plain", *DFQ)
    assert plain.hash == cell.hash and run_cell(plain)["student"] == result["student"]
    assert not list(plain.folder.glob("profile*"))


@pytest.mark.exhaustive
def test_a_reused_stage_took_no_time(tmp_path):
    run_cell(make_cell(tmp_path, *DFQ))
    other = make_cell(tmp_path, *DFQ, "synthesizer.lr=0.1", "runtime.profile=true")
    run_cell(other)
    assert sorted(path.name for path in other.folder.glob("profile*.txt")) == ["profile_student.txt"]


def test_of_a_long_stage_a_few_seconds_are_kept_after_as_many_of_setting_up(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(profiling.time, "monotonic", lambda: now[0])
    window = ProfileWindow(CPU)
    for second in range(1, 11):
        torch.ones(8).sin() if second == 1 else torch.ones(8).cos()
        now[0] = float(second)
        window.between()
        assert window.running == (second < 6)
    table, summary = window.read()
    assert "aten::cos" in table and "aten::sin" not in table and summary.startswith("operators of 3 steps: aten::")


def test_of_many_fast_steps_a_few_are_kept(monkeypatch):
    monkeypatch.setattr(profiling.time, "monotonic", lambda: 0.0)
    window = ProfileWindow(CPU)
    few = profiling.STEPS["cpu"]
    for step in range(1, 3 * few):
        with torch.profiler.record_function("distill"):
            torch.ones(8).cos()
        window.between()
        assert window.running == (step < 2 * few)
    kept = {row.key: row.count for row in window.profile.key_averages()}
    assert kept["aten::cos"] == kept["distill"] == few


def test_the_line_on_the_console_names_the_phases_of_the_whole_stage(tmp_path, caplog, monkeypatch):
    """Also of those that no window has seen to their end."""
    caplog.set_level("INFO", "dfkd")
    now = [0.0]
    monkeypatch.setattr(clock.time, "monotonic", lambda: now[0])
    monkeypatch.setitem(profiling.STEPS, "cpu", 2)
    for seconds in (1.0, 4.0):  # a second stage begins anew
        with profiled("student", CPU, tmp_path) as between:
            its = phase_clock(CPU, marks=True)
            with its("synthesis"):
                now[0] += seconds
            with its("distill"):
                for _ in range(10):
                    torch.rand(200, 200).cos()
                    now[0] += seconds / 5
                    between()
    first, _, second, _ = caplog.messages
    assert re.search(r"synthesis 1\.0 s \(33 %\), distill 2\.0 s \(67 %\), operators of 2 steps: aten::", first)
    assert re.search(r"synthesis 4\.0 s \(33 %\), distill 8\.0 s \(67 %\), operators of 2 steps: aten::", second)


def test_what_fails_is_not_hidden(tmp_path):
    try:
        with profiled("pool", CPU, tmp_path):
            raise KeyError("reason")
    except KeyError as error:
        assert error.args == ("reason",)
    assert list(tmp_path.iterdir()) == []
