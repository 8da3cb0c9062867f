"""Where metrics go. W&B offline and disabled only."""

import json
import logging
import sys

import pytest
from runner import DFQ, TINY, command_line, make_cell, read_json

from dfkd.errors import ConfigError
from dfkd.tracker import GuardedTracker, Tracker, WandB, read_rows

ROWS = [{"stage": "teacher", "step": 0, "loss/id": 2.5}, {"stage": "student", "step": 3, "val/iacc": 91.0}]
RESULT = {"teacher": {"iacc": 99.0}, "student": {"iacc": 91.0, "asr": None}}


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """W&B that writes below tmp_path only and never calls home."""
    pytest.importorskip("wandb")
    for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    for name in ("WANDB_MODE", "WANDB_RUN_ID", "WANDB_PROJECT", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)


def rows(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("tracker", [Tracker(), WandB(mode="disabled")])
def test_metrics_go_to_a_file_at_once(tmp_path, tracker):
    tracker.start(tmp_path, "cell-0123abcd", {})
    for row in ROWS:
        tracker.log(row)
    assert rows(tmp_path) == ROWS
    tracker.image("curves", tmp_path / "curves.png")
    tracker.finish(RESULT)
    assert rows(tmp_path) == ROWS and tracker.file.closed


def test_a_second_run_of_a_cell_starts_its_metrics_anew(tmp_path):
    for row in ROWS:
        tracker = Tracker()
        tracker.start(tmp_path, "cell", {})
        tracker.log(row)
        tracker.finish(None)
    assert rows(tmp_path) == ROWS[1:]


def test_disabled_does_not_import_wandb(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # an import would fail
    tracker = WandB(mode="disabled")
    tracker.start(tmp_path, "cell-0123abcd", {})
    tracker.log(ROWS[0])
    tracker.image("curves", tmp_path / "curves.png")
    tracker.finish(RESULT)
    with pytest.raises(ValueError, match="mode=offline needs Weights & Biases, which is not installed: pip install"):
        WandB(mode="offline")


def test_offline_makes_one_run_that_is_finished_when_the_cell_is_done(tmp_path, offline):
    import wandb

    from dfkd.run.run_cell import run_cell

    cell = make_cell(tmp_path, *DFQ, "tracker=wandb")
    run_cell(cell)
    (folder,) = (cell.folder / "wandb").glob("offline-run-*")
    assert folder.name.endswith(cell.hash) and (folder / f"run-{cell.hash}.wandb").stat().st_size > 0
    pictures = [p.name for p in (folder / "files" / "media" / "images").iterdir()]
    assert any(p.startswith("samples_all") for p in pictures) and any(p.startswith("curves") for p in pictures)
    assert wandb.run is None


def test_offline_makes_one_run_that_is_finished_when_the_cell_fails(tmp_path, offline):
    import wandb

    from dfkd.errors import NonFiniteLoss
    from dfkd.run.run_cell import run_cell

    cell = make_cell(tmp_path, *DFQ, "tracker=wandb", "student.recipe.lr=1e30")
    for _ in range(2):  # repeated, a cell is still one W&B run
        with pytest.raises(NonFiniteLoss):
            run_cell(cell)
    assert len(list((cell.folder / "wandb").glob("offline-run-*"))) == 1
    assert wandb.run is None


def test_an_unknown_mode_is_named_with_the_ones_there_are(tmp_path, offline):
    with pytest.raises(ValueError, match=r"(?s)mode.*offline.*'ofline'"):
        WandB(mode="ofline")


@pytest.mark.parametrize("override", ["tracker.mode=ofline", "+tracker.projcet=mine"])
def test_a_mistake_in_the_tracker_is_found_before_any_work(tmp_path, offline, override):
    from dfkd.run.run_cell import run_cell

    with pytest.raises(ConfigError, match="tracker"):
        run_cell(make_cell(tmp_path, *DFQ, "tracker=wandb", override))
    assert not list(tmp_path.rglob("config.yaml")), "a run folder was made"
    assert not (tmp_path / "store").exists()


def test_tracker_files_writes_no_wandb_and_goes_with_the_smoke_run(tmp_path, monkeypatch, caplog):
    from dfkd.run.run_cell import run_cell

    monkeypatch.setitem(sys.modules, "wandb", None)
    cell = make_cell(tmp_path, *DFQ, "tracker=files")
    with caplog.at_level(logging.WARNING, "dfkd"):
        run_cell(cell)
    assert read_json(cell.folder / "status.json") == {"status": "done"}
    assert {row["stage"] for row in rows(cell.folder)} == {"teacher", "student"}


class FakeRun:
    def __init__(self):
        self.summary, self.steps, self.rows, self.code = {}, {}, [], None

    def define_metric(self, names, step_metric):
        self.steps[names] = step_metric

    def log(self, row):
        self.rows.append(row)

    def finish(self, exit_code):
        self.code = exit_code


@pytest.fixture
def fake(monkeypatch):
    """A wandb module that notes how it is started: {"run": ..., and the arguments of init}."""
    seen = {}

    class Module:
        Error, Settings = RuntimeError, dict

        @staticmethod
        def init(**arguments):
            seen.update(arguments, run=FakeRun())
            return seen["run"]

        @staticmethod
        def teardown():
            seen["torn"] = seen.get("torn", 0) + 1

    monkeypatch.setitem(sys.modules, "wandb", Module)
    for name in ("WANDB_DIR", "WANDB_RUN_GROUP", "WANDB_CONSOLE"):
        monkeypatch.delenv(name, raising=False)
    return seen


@pytest.mark.parametrize(("mode", "resume"), [("online", "allow"), ("offline", None)])
def test_a_cell_is_one_run_by_its_hash_and_online_goes_on_with_it(tmp_path, fake, mode, resume):
    tracker = WandB(mode=mode)
    tracker.start(tmp_path, "cell-0123abcd", {"seed": 1})
    tracker.log(ROWS[1])
    assert (fake["id"], fake["name"], fake["resume"], fake["group"]) == ("0123abcd", "cell-0123abcd", resume, None)
    assert fake["run"].rows == [{"student/step": 3, "student/val/iacc": 91.0}]
    assert fake["run"].steps["student/*"] == "student/step"  # what is logged again falls on what is there


@pytest.mark.parametrize(("result", "code"), [(RESULT, 0), (None, 1)])
def test_the_run_of_a_failed_cell_is_marked_failed(tmp_path, fake, result, code):
    tracker = WandB(mode="online")
    tracker.start(tmp_path, "cell-0123abcd", {})
    tracker.finish(result)
    assert fake["run"].code == code and fake["run"].summary.get("student/iacc") == (91.0 if result else None)


def test_a_sweep_is_a_group_unless_the_user_names_one(tmp_path, fake):
    for given, group in ((None, "sweep-1234abcd"), ("mine", "mine")):
        WandB(mode="offline", group=given).start(tmp_path, "cell-0123abcd", {}, group="sweep-1234abcd")
        assert fake["group"] == group


def test_all_cells_of_a_sweep_are_in_one_group_and_a_relaunch_too(tmp_path, fake):
    groups, sweep = [], ("-m", *TINY, *DFQ, "tracker=wandb", "student.recipe.lr=1e30,1e31", f"outputs={tmp_path / 'o'}")
    start = WandB.start

    def noted(self, *arguments):
        start(self, *arguments)
        groups.append(fake["group"])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WandB, "start", noted)
        command_line(*sweep)
        command_line(*sweep)
    assert len(groups) == 4 and len(set(groups)) == 1 and groups[0].startswith("sweep-")
    assert fake["run"].code == 1


@pytest.mark.parametrize(
    "content", [None, b"", b"\x00\xff", b"3\n[1]\nnull\n", b"[" * 1000 + b"\n", b'{"a": 1', b'{"a": NaN}x\n']
)
def test_of_a_damaged_file_of_metrics_what_is_whole_is_read(tmp_path, content):
    file = tmp_path / "metrics.jsonl"
    file.mkdir() if content is None else file.write_bytes(content + b'\n{"step": 1}\n')
    assert read_rows(file) == ([] if content is None else [{"step": 1}]) and read_rows(tmp_path / "none") == []


def test_what_the_user_set_in_the_environment_is_respected(tmp_path, fake, monkeypatch):
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "mine"))
    monkeypatch.setenv("WANDB_RUN_GROUP", "my-group")
    monkeypatch.setenv("WANDB_CONSOLE", "wrap")
    WandB(mode="offline").start(tmp_path, "cell-0123abcd", {}, group="sweep-1")
    assert (fake["dir"], fake["group"]) == (str(tmp_path / "mine"), "my-group")
    assert "console" not in fake["settings"] and fake["settings"]["silent"]
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    options = make_cell(tmp_path, "tracker=wandb").config["tracker"]
    assert (options["mode"], options["project"]) == ("disabled", "mine")
    assert make_cell(tmp_path, "tracker=wandb", "tracker.mode=offline").config["tracker"]["mode"] == "offline"


@pytest.mark.parametrize("dies_in", ["log", "define_metric", "finish"])
def test_a_tracker_that_dies_is_one_warning_and_the_metrics_go_on(tmp_path, fake, caplog, monkeypatch, dies_in):
    def die(*_, **__):
        raise ConnectionResetError("Connection lost")

    monkeypatch.setattr(FakeRun, dies_in, die)
    tracker = GuardedTracker(WandB(mode="offline"))
    tracker.start(tmp_path, "cell-0123abcd", {})
    with caplog.at_level(logging.WARNING, "dfkd"):
        for row in ROWS:
            tracker.log(row)
        tracker.image("curves", tmp_path / "curves.png") if dies_in == "log" else None
        tracker.finish(RESULT)
    assert rows(tmp_path) == ROWS and fake["torn"] == 1
    (record,) = caplog.records
    where = "finish" if dies_in == "finish" else "log"
    assert f"the tracker has failed in {where} (ConnectionResetError: Connection lost): the run goes" in record.message


def test_a_tracker_that_does_not_start_costs_no_run_but_a_missing_login_is_told(tmp_path, monkeypatch, fake, caplog):
    wandb = sys.modules["wandb"]

    class Unreachable(Exception):
        pass

    class Unknown(Exception):
        pass

    def init(error):
        def start(**_):
            raise error

        return start

    wandb.errors = type("errors", (), {"UsageError": Unknown, "AuthenticationError": Unknown})
    monkeypatch.setattr(wandb, "init", init(Unreachable("no network")))
    tracker = GuardedTracker(WandB(mode="online"))
    with caplog.at_level(logging.WARNING, "dfkd"):
        tracker.start(tmp_path, "cell-0123abcd", {})
        tracker.log(ROWS[0])
    assert rows(tmp_path) == ROWS[:1] and "failed in start (Unreachable: no network)" in caplog.text
    monkeypatch.setattr(wandb, "init", init(Unknown("no API key")))
    with pytest.raises(ConfigError, match=r"no API key\. Log in with `wandb login`"):
        GuardedTracker(WandB(mode="online")).start(tmp_path, "cell-0123abcd", {})


def test_a_run_whose_tracker_dies_has_its_result(tmp_path, monkeypatch, caplog):
    from dfkd.run.run_cell import run_cell

    written = Tracker.log

    def die_later(self, row):
        written(self, row)
        if row["stage"] == "student":
            raise BrokenPipeError("gone")

    monkeypatch.setattr(Tracker, "log", die_later)
    cell = make_cell(tmp_path, *DFQ, "tracker=files")
    with caplog.at_level(logging.WARNING, "dfkd"):
        assert run_cell(cell)["student"]
    assert read_json(cell.folder / "status.json") == {"status": "done"} and caplog.text.count("BrokenPipeError") == 1
