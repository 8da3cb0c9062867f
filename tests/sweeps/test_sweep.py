"""A sweep: every cell by itself, a table at the end, the failures with their retries."""

import json
import os
import pickle
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.types import HydraContext, RunMode
from hydra_plugins.hydra_joblib_launcher.joblib_launcher import JoblibLauncher
from killing import ENDLESS, alive, statuses, wait_for
from omegaconf import OmegaConf, open_dict
from runner import BACKDOOR, DFQ, NOISE, TINY, command_line, composed, process, process_environment, read_json, status

from dfkd.config.cell import Cell
from dfkd.machine import devices
from dfkd.main import CONF
from dfkd.store.digest import file_digest
from dfkd.store.run_folder import RunFolder
from dfkd.sweeps.callback import SweepReport
from dfkd.sweeps.compose import ReadOnce, SweepLoader
from dfkd.sweeps.ledger import LIST, OWNER


def test_a_failing_cell_is_listed_with_its_retry_and_the_other_is_done(tmp_path):
    sweep = ("-m", *NOISE[:1], *TINY, *NOISE[1:], "student.recipe.lr=0.1,1e30", "outputs=o")
    done = process(*sweep, cwd=tmp_path)
    assert done.returncode == 1
    assert statuses(tmp_path) == ["done", "failed"]
    assert "| student ID" in done.stdout and "| n " in done.stdout  # the table, of the one that is done
    (retry,) = (line for line in done.stdout.splitlines() if "retry: " in line)
    assert "student.recipe.lr=1e+30" in retry and "outputs=o" in retry
    assert "1 of 2 cells failed" in done.stdout and "'kd' is not finite" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    # the retry is a command: one cell, that fails again in the same way
    again = command_line(*retry.split("retry: dfkd ")[1].replace("outputs=o", f"outputs={tmp_path / 'o'}").split())
    assert again.code == 1 and "'kd' is not finite" in again.err


@pytest.fixture
def swept(tmp_path):
    command = ("-m", *TINY, *DFQ, *BACKDOOR, "defense=none,atesc", f"outputs={tmp_path / 'o'}")
    return command, command_line(*command)


def test_a_sweep_ends_with_a_table_and_a_figure_and_a_second_one_trains_nothing(tmp_path, pictures, swept):
    command, done = swept
    assert done.code == 0 and statuses(tmp_path) == ["done", "done"]
    table = [line for line in done.out.splitlines() if line.startswith("|")]
    assert [line.split("|")[1].strip() for line in table] == [
        "defense",
        "-" * len(table[1].split("|")[1]),
        "none",
        "atesc",
    ]
    assert "teacher ASR" in table[0] and "fragile" in table[0]
    (page,) = (tmp_path / "o" / "reports").glob("*/report.html")
    assert f"open  {page}" in done.out and (page.parent / "figure.png").exists()
    assert page.read_text().count('<img src="data:image/png;base64,') >= 2  # real pictures of both cells
    assert len(list((tmp_path / "o" / "store" / "teacher").glob("*/meta.json"))) == 1
    again = command_line(*command)
    assert again.code == 0 and again.err.endswith("2 cells: 2 finished before, 0 to run\n")
    assert [line for line in again.out.splitlines() if line.startswith("|")] == table


def test_the_table_keeps_the_sweeps_order_whichever_cell_ended_first(tmp_path, swept, capsys, monkeypatch):
    (ended,) = (tmp_path / "o" / "sweeps").glob("*.jsonl")
    ended.write_text("".join(reversed(ended.read_text().splitlines(keepends=True))))
    monkeypatch.setenv(LIST, str(ended))
    SweepReport().on_multirun_end(OmegaConf.create({"outputs": str(tmp_path / "o"), "dry_run": False}))
    rows = [line.split("|")[1].strip() for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert rows[2:] == ["none", "atesc"]
    assert [row["number"] for row in map(json.loads, ended.read_text().splitlines())] == [0, 1]


def test_bad_input_in_one_cell_does_not_stop_the_others(tmp_path):
    done = command_line(*TINY, *DFQ, "-m", "defense=none", "student.steps=1,0", f"outputs={tmp_path / 'o'}")
    assert done.code == 1 and statuses(tmp_path) == ["done"]
    assert "steps must be at least 1, got 0" in done.out and "retry: dfkd" in done.out


def test_the_retry_knows_where_the_users_own_options_are(tmp_path):
    own, more = tmp_path / "my conf", tmp_path / "more"
    for folder in (own, more):
        (folder / "noise").mkdir(parents=True)
    (more / "defense").mkdir()
    (more / "defense" / "mine.yaml").write_text("name: mine\n_target_: dfkd.defenses.Defense\n")
    (own / "mine.yaml").write_text("defaults:\n  - config\n  - _self_\n")
    arguments = ("--config-dir", str(own), "--config-name", "mine", f"hydra.searchpath=[file://{more}]")
    sweep = (*TINY, *DFQ, "defense=mine", "student.steps=0", f"outputs={tmp_path / 'o'}")
    done = command_line(*arguments, "-m", *sweep)
    (retry,) = (line.partition("retry: dfkd ")[2] for line in done.out.splitlines() if "retry: " in line)
    assert f"'--config-dir={own}' --config-name=mine 'hydra.searchpath=[file://{more}]'" in retry
    again = command_line(*shlex.split(retry))
    assert again.code == 1 and "steps must be at least 1, got 0" in again.err


def test_a_failure_names_the_file_with_its_traceback(tmp_path):
    done = command_line("-m", *TINY, *NOISE, "student.recipe.lr=1e30", f"outputs={tmp_path / 'o'}")
    (file,) = (line.partition("traceback: ")[2] for line in done.out.splitlines() if "traceback: " in line)
    assert "NonFiniteLoss" in read_json(Path(file))["traceback"]


TYPOS = {
    "an option": (["defense=none,ckd,atesc,atesc_al"], "did you mean 'atesc_all'?"),
    "a key": (["seed=0,1", "techer.epochs=1"], "did you mean 'teacher'?"),
    "an added key": (
        ["seed=0,1", "+teacher.epohcs=1"],
        "teacher.epohcs: there is no such option; did you mean 'epochs'?",
    ),
    "a kind of value": (["teacher.epochs=1,1,1,two"], "teacher.epochs must be a whole number, got 'two'"),
    "what is missing": (["teacher=supervised,checkpoint"], "teacher.path is missing: set teacher.path=..."),
    "a section": (["seed=0,1", "evaluate.premise=null"], "evaluate.premise is a section of options"),
    "a switch": (["fail_fast=yes", "seed=0,1"], "fail_fast must be true or false, got 'yes'"),
}


@pytest.mark.parametrize("typo", TYPOS)
def test_a_typo_in_any_cell_is_one_message_before_the_first_cell_starts(tmp_path, typo, monkeypatch):
    monkeypatch.setattr(BasicLauncher, "launch", never)
    arguments, said = TYPOS[typo]
    done = command_line("-m", *TINY, *arguments, f"outputs={tmp_path / 'o'}")
    assert done.code == 1 and said in done.err and done.err.count("dfkd: ") == 1 and done.out == ""
    assert not (tmp_path / "o").exists()


def never(*_, **__):
    raise AssertionError("launched")


def test_what_is_wrong_with_several_cells_is_told_at_once_and_once(tmp_path):
    done = command_line("-m", *TINY, "teacher.epochs=two,3", "+student.stps=1,2", f"outputs={tmp_path / 'o'}")
    said = done.err.partition("dfkd: ")[2]  # after what a slow machine says of its progress
    assert len(said.splitlines()) == 2 and "'two'" in said and "student.stps" in said


def finish(*overrides: str) -> None:
    """Leave the run folder of a finished cell."""
    cell = Cell(composed(*overrides))
    cell.folder.mkdir(parents=True)
    (cell.folder / "student.safetensors").write_bytes(b"weights")
    measured = {"iacc": 90.0, "oacc": None, "olacc": None, "asr": None, "agreement": 95.0}
    result = {"cell": cell.name, "hash": cell.hash, "seed": cell.config["seed"], "config": cell.config}
    result |= {"teacher": measured, "student": measured, "fragile_share": 1.0, "teacher_evals": {"distill": 3}}
    result |= {"seconds": {"total": 1.0}, "warnings": [], "stages": {}}
    result["student_digest"] = file_digest(cell.folder / "student.safetensors")
    RunFolder(cell.folder).write_result(result)


@pytest.mark.parametrize("launcher", ["basic", "parallel"])
def test_finished_cells_are_composed_together_and_not_launched(tmp_path, monkeypatch, launcher):
    overrides = (*TINY, *DFQ, f"outputs={tmp_path / 'o'}")
    for seed in range(3):
        finish(*overrides, f"seed={seed}")
    composed_now, read = [], []
    for owner, name, seen in (
        (ConfigLoaderImpl, "load_sweep_config", composed_now),
        (ConfigRepository, "load_config", read),
    ):
        whole = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *a, _f=whole, _s=seen, **k: _s.append(a[-1]) or _f(*a, **k))
    monkeypatch.setattr(BasicLauncher, "launch", never)
    monkeypatch.setattr(JoblibLauncher, "launch", never)
    done = command_line("-m", *overrides, "seed=0,1,2", f"hydra/launcher={launcher}")
    assert done.code == 0 and "3 cells: 3 finished before, 0 to run" in done.err and "| 3 |" in done.out
    assert len(composed_now) == 1  # they choose the same options
    assert len(read) < 3 * len(set(read)) + 10  # by Hydra itself for the sweep (twice), then once for all cells


def test_only_what_is_not_finished_is_launched_under_its_own_number(tmp_path):
    overrides = (*TINY, *DFQ, f"outputs={tmp_path / 'o'}")
    finish(*overrides, "student.steps=1")
    done = command_line("-m", *overrides, "student.steps=1,0,2")
    assert "3 cells: 1 finished before, 2 to run" in done.err and done.err.count("FAILED") == 1
    (ended,) = (tmp_path / "o" / "sweeps").glob("*.jsonl")
    rows = [json.loads(line) for line in ended.read_text().splitlines()]
    assert [(row["number"], row["status"]) for row in rows] == [(0, "done"), (1, "failed"), (2, "done")]
    assert rows[0]["cached"] and [row["arguments"][-1] for row in rows] == [f"student.steps={n}" for n in (1, 0, 2)]


def test_values_that_name_a_cell_twice_run_it_once(tmp_path):
    done = command_line("-m", *TINY, *DFQ, "runtime.chunk=500,600", f"outputs={tmp_path / 'o'}")
    assert done.code == 0 and "1 cell: 0 finished before, 1 to run" in done.err


def test_a_composition_that_reads_once_gives_what_hydra_gives():
    with initialize_config_dir(str(CONF), version_base="1.3"):
        loader = GlobalHydra.instance().hydra.config_loader

        def compose(*overrides: str):
            return loader.load_configuration("config", ["hydra.mode=RUN", *overrides], RunMode.RUN)

        cells = [("seed=1",), ("experiment=quickstart",), ("seed=2", "synthesizer=cake", "prior=[tv,bn]"), ("seed=1",)]
        expected = [compose(*cell) for cell in cells]
        loader.repository = ReadOnce(loader.repository)
        assert [compose(*cell) for cell in cells] == expected


def test_cells_composed_together_are_what_hydra_composes_one_by_one():
    cells = [
        ["seed=1", "teacher.epochs=3"],
        ["experiment=quickstart", "defense=atesc", "defense.weight=0.5", "attack.eps=4/255"],
        ["experiment=quickstart", "defense.weight=2", "defense=atesc", "attack.eps=4/255"],
        ["seed=2", "synthesizer=cake", "prior=[tv,bn]", "prior.tv.weight=1e3", "prior.bn={weight:3}"],
        ["seed=3", "synthesizer=cake", "prior=[tv,bn]", "~prior.bn", "+student.keep.eps=[1e-4,1e-2]", "++a.b=1"],
        ["seed=4", "synthesizer=cake", "~noise"],
        ["seed=1", "teacher.epochs=3"],
        ["seeds.teacher=7", "seed=5"],
        ["seed=6", "seed=8", "seeds.student=null", "data.root='${outputs}/data'"],
        ["seed=7", "attack.eps=[1/255,auto]"],
        ["seed=8", "noise={}"],
        ["seed=1", "teacher.epochs=3"],
    ]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        loader = GlobalHydra.instance().hydra.config_loader
        master = loader.load_configuration("config", ["hydra.mode=MULTIRUN", "seed=9"], RunMode.MULTIRUN)
        ours = SweepLoader(loader)
        for words in cells:
            assert ours.load_sweep_config(master, words) == loader.load_sweep_config(master, words), words
        for number, words in enumerate(cells):
            cfg, whole = ours.load_cell(master, words, number), loader.load_sweep_config(master, words)
            hydra = HydraConfig.get()
            with open_dict(whole):
                whole.hydra.job.id = whole.hydra.job.num = number
            HydraConfig.instance().set_config(whole)
            assert hydra == HydraConfig.get() and OmegaConf.is_readonly(hydra), words
            with open_dict(whole):
                del whole["hydra"]
            assert cfg == whole, words
        assert len(ours.composed) == 4
        for wrong in (["teacher.epoch=3"], ["defense.weight=1"], ["~defense.weight"], ["+seed=1"]):
            with pytest.raises(HydraException) as said:
                ours.load_sweep_config(master, wrong)
            with pytest.raises(HydraException) as hydras:
                loader.load_sweep_config(master, wrong)
            assert str(said.value) == str(hydras.value)
        assert type(pickle.loads(pickle.dumps(ours))) is ConfigLoaderImpl  # of another process


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["experiment=quickstart", "debug=small"], "debug=small is the size of an ablation that fits a CPU"),
        (["hydra.sweeper.size=tiny"], "hydra.sweeper.size must be paper or small, got 'tiny'"),
    ],
)
def test_a_size_that_is_not_there(tmp_path, words, said):
    done = command_line("-m", *words, f"outputs={tmp_path / 'o'}")
    assert done.code == 1 and said in done.err and not (tmp_path / "o").exists()


def test_fail_fast_starts_no_further_cell(tmp_path):
    done = command_line("-m", *TINY, *DFQ, "student.steps=0,-1,1,2", "fail_fast=true", f"outputs={tmp_path / 'o'}")
    assert done.code == 1 and not (tmp_path / "o" / "runs").exists()
    assert "1 of 4 cells failed" in done.out and "3 of 4 cells were not started: fail_fast=true" in done.out
    assert "steps must be at least 1" in done.out


def test_fail_fast_of_cells_beside_each_other(tmp_path):
    sweep = ("hydra/launcher=parallel", "hydra.launcher.n_jobs=1", *TINY, *DFQ, "outputs=o")
    done = process("-m", *sweep, "student.steps=0,1,2", "fail_fast=true", cwd=tmp_path)
    assert (
        done.returncode == 1 and "2 of 3 cells were not started" in done.stdout and not (tmp_path / "o/runs").exists()
    )


def test_joblibs_launcher_is_replaced_by_one_whose_workers_end_with_the_sweep(monkeypatch):
    for name in (LIST, OWNER):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr("dfkd.machine.interrupt.shield_children", lambda: None)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        loader, words = GlobalHydra.instance().hydra.config_loader, ["hydra/launcher=joblib", "hydra.launcher.n_jobs=3"]
        config = loader.load_configuration("config", words, RunMode.MULTIRUN)
    SweepReport().on_multirun_start(config)
    launcher = Plugins.instance().instantiate_launcher(
        hydra_context=HydraContext(loader, None), task_function=never, config=config
    )
    assert type(launcher).__name__ == "ParallelLauncher" and launcher.joblib["n_jobs"] == 3


def test_hydras_own_sweeper_still_works(tmp_path):
    sweep = ("hydra/sweeper=basic", *TINY, *DFQ, "student.steps=1,0", f"outputs={tmp_path / 'o'}")
    done = command_line("-m", *sweep)
    assert done.code == 1 and "1 of 2 cells failed" in done.out and "student.steps=0" in done.out
    again = command_line("-m", *sweep)
    assert again.err.count("was finished before") == 1


def test_a_table_that_cannot_be_made_is_said_and_hides_no_failure(tmp_path, swept, monkeypatch):
    monkeypatch.setattr("dfkd.report.report_of_sweep", lambda *_: 1 / 0)
    again = command_line(*swept[0])
    assert again.code == 1 and "there is no table of them: ZeroDivisionError" in again.out


def test_cells_beside_each_other_share_the_teacher_and_stand_in_their_order(tmp_path):
    # the last one fails
    sweep = ("-m", "hydra/launcher=parallel", *TINY, *DFQ, "student.steps=2,1,0", "outputs=o")
    done = process(*sweep, cwd=tmp_path)
    assert done.returncode == 1 and statuses(tmp_path) == ["done", "done"]
    assert len(list((tmp_path / "o" / "store" / "teacher").glob("*/meta.json"))) == 1
    assert [line.split("|")[1].strip() for line in done.stdout.splitlines() if line.startswith("|")][2:] == ["2", "1"]
    assert "[0]   student" in done.stderr and "[1]   student" in done.stderr  # whose line it is
    assert "steps must be at least 1, got 0" in done.stdout and "1 of 3 cells failed" in done.stdout


# Of three workers one has nothing to do: Ctrl-C in a terminal reaches it too.
BESIDE = {
    "parallel": ("hydra/launcher=parallel", "hydra.launcher.n_jobs=3"),
    "joblib": ("hydra/launcher=joblib", "hydra.launcher.n_jobs=3"),
    "gpus": ("hydra/launcher=gpus", "hydra.launcher.devices=[cpu:0,cpu:1]"),
}


@pytest.mark.parametrize(
    ("number", "everybody", "launcher"),
    [
        pytest.param(signal.SIGTERM, False, "parallel", marks=pytest.mark.exhaustive),
        (signal.SIGINT, True, "parallel"),
        pytest.param(signal.SIGKILL, False, "gpus", marks=pytest.mark.exhaustive),
        pytest.param(signal.SIGKILL, False, "parallel", marks=pytest.mark.exhaustive),
        pytest.param(signal.SIGKILL, False, "joblib", marks=pytest.mark.exhaustive),
    ],
)
def test_a_stopped_parallel_sweep_saves_and_takes_its_workers_along(tmp_path, monkeypatch, number, everybody, launcher):
    monkeypatch.setenv(devices.FOLDER, str(tmp_path / "locks"))
    tiny = ["runtime.device=auto" if word.startswith("runtime.device") else word for word in TINY]
    sweep = ("-m", *BESIDE[launcher], "seed=0,1", "outputs=o", *tiny, *DFQ, *ENDLESS)
    with (tmp_path / "log").open("w") as log:
        # a session of its own: the signal reaches the parent alone, as from a scheduler
        sweep = subprocess.Popen(
            [sys.executable, "-m", "dfkd", *sweep],
            **{"cwd": tmp_path, "env": process_environment(), "stdout": log, "stderr": log, "start_new_session": True},
        )
    try:
        wait_for(lambda: len(list((tmp_path / "o" / "store" / "student").glob(".*.checkpoint"))) == 2, seconds=60)
        assert [status(folder) for folder in (tmp_path / "o" / "runs").iterdir()] == ["running"] * 2
        os.killpg(sweep.pid, number) if everybody else sweep.send_signal(number)
        assert sweep.wait(timeout=60) == (-number if number == signal.SIGKILL else 1)
        wait_for(lambda: not alive(sweep.pid), seconds=20)
        if launcher == "gpus":
            assert len(list((tmp_path / "locks").iterdir())) == 2
            assert [devices.first_free([name], 1).name for name in ("cpu:0", "cpu:1")] == ["cpu:0", "cpu:1"]
    finally:
        if alive(sweep.pid):
            os.killpg(sweep.pid, signal.SIGKILL)
    said = (tmp_path / "log").read_text()
    assert ("interrupted: what is done is kept" in said) == (number != signal.SIGKILL) and "Traceback" not in said
    assert statuses(tmp_path) == ["interrupted"] * 2
    assert len(list((tmp_path / "o" / "store" / "student").glob(".*.checkpoint"))) == 2
    assert not list((tmp_path / "o" / "store").rglob("*.tmp"))


def test_a_signal_stops_the_cells_that_come_one_after_the_other(tmp_path, monkeypatch):
    from dfkd.distill import Distillation

    log_round = Distillation.log_round

    def stop_in_the_third_round(self, number):
        if number == 2:
            os.kill(os.getpid(), signal.SIGUSR1)
        return log_round(self, number)

    monkeypatch.setattr(Distillation, "log_round", stop_in_the_third_round)
    done = command_line("-m", *TINY, *DFQ, *ENDLESS, "seed=0,1", f"outputs={tmp_path / 'o'}")
    assert done.code == 1 and "interrupted: what is done is kept" in done.err
    assert statuses(tmp_path) == ["interrupted"]  # the other has not begun
    assert len(list((tmp_path / "o" / "store" / "student").glob(".*.checkpoint"))) == 1


@pytest.mark.parametrize("at_work", ["interrupted", "waiting"])  # or between two cells
def test_a_worker_that_was_stopped_alone_is_told_at_the_end(tmp_path, capsys, monkeypatch, at_work):
    arguments = {"folder": str(tmp_path / "x"), "arguments": []}
    rows = [{"number": n, "status": s} | arguments for n, s in enumerate(("waiting", at_work, "waiting"))]
    (tmp_path / "list").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    monkeypatch.setenv(LIST, str(tmp_path / "list"))
    with pytest.raises(SystemExit, match="1"):
        SweepReport().on_multirun_end(OmegaConf.create({"outputs": str(tmp_path), "dry_run": False}))
    assert "3 of 3 cells were interrupted or not started; the same command goes on" in capsys.readouterr().out


def test_a_cell_whose_last_line_was_lost_is_told_by_its_run_folder(tmp_path, capsys, monkeypatch):
    rows = [{"number": n, "status": "running", "folder": str(tmp_path / f"x{n}"), "arguments": ["a=1"]} for n in (0, 1)]
    (tmp_path / "list").write_text("".join(f"{json.dumps(row)}\n" for row in rows) + '{"number": 0, "status": "fai\n')
    for number, how in enumerate(("failed", "done")):
        (tmp_path / f"x{number}").mkdir()
        RunFolder(tmp_path / f"x{number}").set_status(how, error="it was NaN" if how == "failed" else None)
    monkeypatch.setenv(LIST, str(tmp_path / "list"))
    monkeypatch.setattr(SweepReport, "table", lambda *_: True)
    with pytest.raises(SystemExit, match="1"):
        SweepReport().on_multirun_end(OmegaConf.create({"outputs": str(tmp_path), "dry_run": False}))
    assert "FAILED: it was NaN" in (said := capsys.readouterr().out) and "1 of 2 cells failed" in said


def test_a_preset_of_axes_needs_a_sweeper_that_has_them(tmp_path):
    done = command_line("-m", "hydra/sweeper=basic", "ablation=cake/components", f"outputs={tmp_path / 'o'}")
    assert done.code == 1 and done.err.startswith(
        "dfkd: the axes of this experiment or ablation are for hydra/sweeper="
    )
