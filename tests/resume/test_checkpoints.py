"""Stages that are saved on their way and go on: which steps are taken again, and what is said when that cannot be."""

import errno
import logging
import os

import pytest
import torch
from killing import Killed

from dfkd.machine import interrupt
from dfkd.machine.interrupt import Interrupted
from dfkd.resume import checkpoints as module
from dfkd.resume.checkpoints import Checkpoints
from dfkd.resume.state import CheckpointMismatch


class Work:
    """Notes what it does; what it has done is its state."""

    def __init__(self):
        self.done: list = []


class Story:
    """A stage of several loops, broken off after a number of steps."""

    def __init__(self, folder, every: float | None = 0, kill_at: int | None = None, **about):
        self.checkpoints, self.file = Checkpoints(every), folder / ".key.checkpoint"
        self.kill_at, self.about = kill_at, {"key": "key"} | about
        self.taken: list = []  # in this run alone

    def step(self, work: Work, what: object) -> None:
        work.done.append(what)
        self.taken.append(what)
        if len(self.taken) == self.kill_at:
            raise Killed

    def tell(self) -> list:
        work, point = Work(), self.checkpoints
        with point.stage("student", self.about["key"], self.file, self.about.get("code", "")):
            point.register(work=work)
            for a in point.loop("a", 3):
                self.step(work, f"a{a}")
                for b in point.loop("b", 2):
                    self.step(work, f"a{a}b{b}")
                for b in point.loop("b", 2):
                    self.step(work, f"a{a}B{b}")
            count = torch.zeros(())
            counter = [count]
            for c in point.loop("c", 6, 4, counter=counter):
                counter[0] = counter[0] + 1
                self.step(work, f"c{c}")
            work.done.append(counter[0].item())
        return work.done


ROUND = ("", "b0", "b1", "B0", "B1")
ALL = [*(f"a{a}{step}" for a in range(3) for step in ROUND), "c0", "c4", 2.0]


def test_without_a_stage_loops_are_ranges():
    assert Checkpoints(0).loop("a", 7, 3) == range(0, 7, 3) and Checkpoints().loop("a", 2).start == 0


def test_two_parts_of_one_name_are_refused_since_one_would_be_missing_in_the_checkpoint(tmp_path):
    point = Checkpoints(0)
    refused = pytest.raises(ValueError, match="loop 'step': other parts of the stage have the names meter already")
    with refused, point.stage("pool", "key", tmp_path / ".key.checkpoint"):
        point.register(meter=Work())
        next(iter(point.loop("step", 3, meter=Work())))


def test_an_undisturbed_stage_takes_every_step(tmp_path):
    assert Story(tmp_path).tell() == ALL


@pytest.mark.parametrize("kill_at", range(1, len(ALL)))
def test_a_stage_broken_off_anywhere_takes_the_step_it_was_in_again_and_no_other(tmp_path, kill_at):
    first = Story(tmp_path, kill_at=kill_at)
    with pytest.raises(Killed):
        first.tell()
    second = Story(tmp_path)
    assert second.tell() == ALL
    # steps of the outer loop have an inner loop after them: they are entered again, and undone
    again = [step for step in second.taken if step in first.taken[:-1]]
    assert len(again) <= 1 and all(step in ("a0", "a1", "a2") for step in again)


def test_a_stage_may_be_broken_off_again_and_again(tmp_path):
    for _ in range(40):
        story = Story(tmp_path, kill_at=3)
        try:
            done = story.tell()
            break
        except Killed:
            pass
    assert done == ALL


def test_it_is_saved_when_it_is_time(tmp_path, monkeypatch):
    now, saved = [100.0], []
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(module, "write", lambda file, about, state: saved.append(state["position"][0][1]))
    point = Checkpoints(every=60)
    with point.stage("student", "key", tmp_path / "file"):
        for _ in point.loop("round", 10):
            now[0] += 25
    assert saved == [3, 6, 9]  # every 60 s, at the next step


def test_what_takes_long_to_save_is_saved_as_often_and_told_once(tmp_path, monkeypatch, caplog):
    now, saved = [100.0], []

    def write(file, about, state) -> None:
        now[0] += 25
        saved.append(state["position"][0][1])

    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(module, "write", write)
    point = Checkpoints(every=60)
    with point.stage("student", "key", tmp_path / "file"):
        for _ in point.loop("round", 20):
            now[0] += 25
    assert saved == [3, 6, 9, 12, 15, 18]
    (line,) = caplog.messages
    assert "its state takes 25 s to save, every 60 s" in line and "set runtime.checkpoint_every=250" in line


def test_never_is_never(tmp_path):
    Story(tmp_path, every=None).tell()
    assert os.listdir(tmp_path) == []


def test_what_is_there_is_used_even_if_nothing_more_is_saved(tmp_path):
    with pytest.raises(Killed):
        Story(tmp_path, kill_at=8).tell()
    before = (tmp_path / ".key.checkpoint").read_bytes()
    story = Story(tmp_path, every=None)
    assert story.tell() == ALL and "a0b0" not in story.taken
    assert (tmp_path / ".key.checkpoint").read_bytes() == before


def test_rows_seconds_and_random_numbers_go_on(tmp_path, monkeypatch, caplog):
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])

    def run(kill_at: int | None) -> tuple[list, float, float]:
        torch.manual_seed(3)
        point, drawn = Checkpoints(0), []
        with point.stage("student", "key", tmp_path / "file"):
            point.register(drawn=drawn)
            for i in point.loop("round", 4):
                now[0] += 10
                drawn.append(torch.rand(()).item())
                point.rows.append({"step": i, "loss": float("nan") if i == 0 else drawn[-1]})
                if i == kill_at:
                    raise Killed
            return point.rows, point.seconds, drawn

    rows, seconds, drawn = run(None)
    (tmp_path / "file").unlink()
    with pytest.raises(Killed):
        run(2)
    now[0] += 1000  # nobody was there
    with caplog.at_level(logging.INFO, "dfkd"):
        again = run(None)
    assert repr(again) == repr((rows, seconds, drawn)) and seconds == 40
    assert "student  key resumed at round 2 of 4" in caplog.text


@pytest.mark.parametrize("change", [{"key": "other"}, {"code": "other"}, "torch", "device"])
def test_what_another_program_has_saved_is_not_used(tmp_path, monkeypatch, caplog, change):
    with pytest.raises(Killed):
        Story(tmp_path, kill_at=8).tell()
    story = Story(tmp_path, **(change if isinstance(change, dict) else {}))
    if change == "torch":
        monkeypatch.setattr(torch, "__version__", "9.9.9")
    elif change == "device":
        story.checkpoints.device = torch.device("meta")
    with caplog.at_level(logging.INFO, "dfkd"):
        assert story.tell() == ALL and len(story.taken) == len(ALL) - 1
    name = change if isinstance(change, str) else next(iter(change))
    assert f"begins anew: its checkpoint is of another {name}" in caplog.text


def test_a_damaged_one_is_named_and_the_stage_begins_anew(tmp_path, caplog):
    with pytest.raises(Killed):
        Story(tmp_path, kill_at=8).tell()
    file = tmp_path / ".key.checkpoint"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert Story(tmp_path).tell() == ALL
    assert str(file) in caplog.text and "damaged" in caplog.text and len(caplog.records) == 1


def test_a_stage_that_is_made_otherwise_now_is_a_misfit_and_its_file_is_gone(tmp_path):
    with pytest.raises(Killed):
        Story(tmp_path, kill_at=8).tell()
    point = Checkpoints(0)
    with pytest.raises(CheckpointMismatch), point.stage("student", "key", tmp_path / ".key.checkpoint"):
        point.register(work=torch.Generator())
        for _ in point.loop("a", 3):
            pass
    assert os.listdir(tmp_path) == [] and point.loop("a", 3) == range(3)


def test_a_loop_that_never_comes_again_is_a_misfit(tmp_path):
    with pytest.raises(Killed):
        Story(tmp_path, kill_at=8).tell()
    point = Checkpoints(0)
    with (
        pytest.raises(CheckpointMismatch, match="never came"),
        point.stage("student", "key", tmp_path / ".key.checkpoint"),
    ):
        point.register(work=Work())
        assert list(point.loop("other", 3)) == []


def test_a_full_disk_is_said_once_and_the_stage_goes_on(tmp_path, monkeypatch, caplog):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    assert Story(tmp_path).tell() == ALL
    assert caplog.text.count("no checkpoint was saved") == 1 and "No space left on device" in caplog.text
    assert os.listdir(tmp_path) == []


def test_what_cannot_be_saved_is_said_once_and_the_stage_goes_on(tmp_path, caplog):
    point, work = Checkpoints(0), Work()
    with point.stage("student", "key", tmp_path / "file"):
        point.register(work=work)
        for i in point.loop("round", 5):
            if i == 2:
                work.late = torch.nn.Linear(1, 1)
    assert len(caplog.records) == 1
    assert "student  key: cannot be saved on its way" in caplog.text
    assert "work.late (Linear) was not there" in caplog.text
    position = module.read(tmp_path / "file", torch.device("cpu"))[1]["position"]
    assert position == [["round #0", 2]]  # that one is good


def test_an_object_that_breaks_when_it_is_looked_at_does_not_break_the_stage(tmp_path, caplog):
    class Strange:
        def checkpoint_state(self) -> dict:
            raise RuntimeError("do not look")

    point = Checkpoints(0)
    with point.stage("student", "key", tmp_path / "file"):
        point.register(strange=Strange())
        assert list(point.loop("round", 3)) == [0, 1, 2]
    assert caplog.text.count("do not look") == 1 and not (tmp_path / "file").exists()


@pytest.fixture
def asked(monkeypatch):
    """Ask to stop, without a signal."""
    yield lambda: monkeypatch.setattr(interrupt, "asked", True)
    interrupt.defer(False)


def test_a_stage_that_is_asked_to_stop_saves_and_stops(tmp_path, asked, monkeypatch):
    story = Story(tmp_path, every=3600)
    step = story.step

    def ask(work: Work, what: str) -> None:
        step(work, what)
        if what == "a1b0":
            assert interrupt.deferred
            asked()

    story.step = ask
    with pytest.raises(Interrupted):
        story.tell()
    assert not interrupt.deferred and story.taken[-1] == "a1b0"
    monkeypatch.setattr(interrupt, "asked", False)
    second = Story(tmp_path, every=3600)
    assert second.tell() == ALL and second.taken[:2] == ["a1", "a1b1"]


def test_signals_are_only_deferred_where_somebody_looks(tmp_path):
    for every, deferred in ((0, True), (None, False)):
        point = Checkpoints(every)
        with point.stage("student", "key", tmp_path / "file"):
            assert not interrupt.deferred
            for _ in point.loop("a", 1):
                assert interrupt.deferred == deferred
                for _ in point.loop("b", 1):
                    assert interrupt.deferred == deferred
                assert interrupt.deferred == deferred
            assert not interrupt.deferred
