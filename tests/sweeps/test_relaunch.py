"""A launcher whose processes are killed: every other cell comes through, and the guilty one is named."""

import json
import logging
import os
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest
from runner import TINY, process, read_json, write_component

from dfkd.errors import ConfigError
from dfkd.sweeps import ledger, relaunch

DEADLY = '''
import os
import signal

import torch

from dfkd.sweeps import relaunch
from dfkd.synthesizers import Synthesizer, Synthetic

relaunch.TRIES = 1  # fewer processes, each of which takes seconds to start


class Deadly(Synthesizer):
    """Its process is killed if it is told so."""

    def __init__(self, shape: tuple[int, int, int], rounds: int, dies: bool):
        super().__init__(rounds)
        self.shape, self.dies = shape, dies

    def synthesize(self, rounds, teacher, student=None, steer=None):
        if self.dies:
            os.kill(os.getpid(), signal.SIGKILL)
        return Synthetic(torch.rand(32, *self.shape, generator=self.stream(rounds.start)))
'''
DEADLY_YAML = """\
defaults:
  - override /student@_global_.student: offline
  - _self_
name: deadly
_target_: deadly.Deadly
rounds: 2
dies: false
"""


class Pool:
    """A launcher of two cells at a time, that breaks when a deadly one is among those that run.

    Attributes:
        launched: the words of every launch.
    """

    def __init__(self, deadly: set[str]):
        self.deadly, self.launched = deadly, []

    def launch(self, batch, initial_job_idx):
        self.launched.append(["".join(words) for words in batch])
        for first in range(0, len(batch), 2):
            pair = list(enumerate(batch, initial_job_idx))[first : first + 2]
            for at, _ in pair:
                ledger.append({"number": ledger.cell_number(at), "status": "running"} | OF_A_ROW)
            if any("".join(words) in self.deadly for _, words in pair):
                raise BrokenProcessPool(
                    "A worker was terminated.\nThe exit codes of the workers are {SIGKILL(-9)}\nDetailed"
                )
            for at, _ in pair:
                ledger.append({"number": ledger.cell_number(at), "status": "done"} | OF_A_ROW)
        return [None] * len(batch)


OF_A_ROW = {"folder": None, "arguments": []}


@pytest.fixture
def waiting(tmp_path, monkeypatch):
    """Five cells of a sweep that wait, as the second to sixth of it."""
    monkeypatch.setenv(ledger.LIST, str(tmp_path / "list.jsonl"))
    ledger.append({"number": 0, "status": "done", "cached": True} | OF_A_ROW)
    for number in range(1, 6):
        ledger.append({"number": number, "status": "waiting"} | OF_A_ROW)
    return [[word] for word in "abcde"]


def ended() -> str:
    return " ".join(row["status"] for row in ledger.last_rows())


def test_nothing_killed_is_launched_once(waiting):
    pool = Pool(set())
    assert len(relaunch.launch(pool, waiting, 0)) == 5
    assert pool.launched == [["a", "b", "c", "d", "e"]] and ended() == "done " * 5 + "done"


def test_the_list_of_a_sweep_is_not_read_for_every_cell(waiting, monkeypatch):
    reads, events = [], ledger.events
    monkeypatch.setattr(ledger, "events", lambda: reads.append(1) or events())
    pool = Pool(set())
    pool.launch = lambda batch, initial_job_idx: [None] * len(batch)
    relaunch.launch(pool, waiting, 0)
    assert len(reads) < len(waiting)


def test_a_second_batch_is_that_of_its_cells(waiting):
    pool = Pool({"d"})
    relaunch.launch(pool, waiting[:2], 0)
    relaunch.launch(pool, waiting[2:], 2)
    assert pool.launched[:2] == [["a", "b"], ["c", "d", "e"]] and ended() == "done done done done failed done"


def test_a_list_that_has_lost_a_waiting_cell_does_not_lose_it_silently(waiting):
    file = Path(os.environ[ledger.LIST])
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join([*lines[:-1], lines[-1][:10] + "\n"]))
    with pytest.raises(ConfigError, match="the same command goes on"):
        relaunch.launch(Pool(set()), waiting, 0)


def test_half_a_line_does_not_take_the_next_one_along(waiting):
    with Path(os.environ[ledger.LIST]).open("a") as file:
        file.write('{"number": 1, "stat')  # its writer was killed
    ledger.append({"number": 2, "status": "done"} | OF_A_ROW)
    assert ended() == "done waiting done waiting waiting waiting"


def test_what_is_launched_again_keeps_its_place_beside_siblings(tmp_path, monkeypatch):
    monkeypatch.setenv(ledger.LIST, str(tmp_path / "list.jsonl"))
    for number in (0, 2):
        ledger.append({"number": number, "status": "waiting"} | OF_A_ROW)
        ledger.append({"number": number + 1, "with": number, "status": "waiting"} | OF_A_ROW)
    pool = Pool({"b"})
    relaunch.launch(pool, [["a"], ["b"]], 0)
    assert pool.launched == [["a", "b"], ["a", "b"], ["a"], ["b"]]
    assert ended() == "done waiting failed failed"  # a's sibling: this pool says nothing of it


def test_the_guilty_one_fails_by_itself_and_all_others_come_through(waiting, caplog):
    pool = Pool({"c"})
    with caplog.at_level(logging.WARNING, "dfkd"):
        relaunch.launch(pool, waiting, 0)
    # c takes d along, goes on beside it and takes it along again; the others are through before either is tried alone
    assert pool.launched == [["a", "b", "c", "d", "e"], ["c", "d", "e"], ["e"], ["c"], ["d"]]
    assert ended() == "done done done failed done done"
    (failed,) = [row for row in ledger.last_rows() if row["status"] == "failed"]
    assert failed["error"] == "its process was killed (SIGKILL(-9)), for its memory?"
    assert [record.message for record in caplog.records] == [
        "a process was killed (SIGKILL(-9)): 2 cells launched again"
    ] * 2


def test_every_cell_may_be_guilty(waiting):
    pool = Pool(set("abcde"))
    relaunch.launch(pool, waiting, 0)
    assert ended() == "done" + " failed" * 5 and len(pool.launched) < 15


def test_a_pool_that_breaks_before_any_cell_runs_is_given_up(waiting):
    class Broken:
        launches = 0

        def launch(self, batch, initial_job_idx):
            self.launches += 1
            raise BrokenProcessPool("no process can be started")

    broken = Broken()
    relaunch.launch(broken, waiting, 0)
    assert broken.launches == relaunch.TRIES + 5 and ended() == "done" + " failed" * 5


@pytest.mark.exhaustive  # the tests above are of the same, without processes
def test_a_process_of_a_parallel_sweep_is_killed(tmp_path):
    write_component(tmp_path, "deadly", DEADLY, synthesizer__deadly=DEADLY_YAML)
    words = ("--config-dir", "options", "synthesizer=deadly", *TINY, "hydra/launcher=parallel", "outputs=o")
    done = process("-m", *words, "synthesizer.dies=true,false", cwd=tmp_path)
    assert done.returncode == 1 and "1 of 2 cells failed" in done.stdout and "SIGKILL" in done.stdout
    assert "synthesizer.dies=True" in done.stdout.partition("retry: ")[2].splitlines()[0]
    states = {path: read_json(path / "status.json")["status"] for path in (tmp_path / "o" / "runs").iterdir()}
    assert sorted(states.values()) == ["done", "failed"] and "traceback" not in done.stdout
    rows = [json.loads(line) for line in next((tmp_path / "o" / "sweeps").glob("*.jsonl")).read_text().splitlines()]
    assert [row["status"] for row in rows] == ["failed", "done"]
