"""A sweep: every cell by itself, a table at the end, the failures with their retries."""

import os
import signal
import subprocess
import sys
import time

import pytest
from omegaconf import OmegaConf
from runner import BACKDOOR, DFQ, NOISE, TINY, command_line, process, process_environment, read_json

from dfkd.cell import status
from dfkd.sweep import SweepReport


def statuses(folder) -> list[str]:
    return sorted(read_json(file)["status"] for file in folder.glob("o/runs/*/status.json"))


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


def test_a_sweep_ends_with_a_table_and_a_figure_and_a_second_one_trains_nothing(tmp_path, swept):
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
    assert len(list((tmp_path / "o" / "reports").glob("*/figure.png"))) == 1
    assert len(list((tmp_path / "o" / "store" / "teacher").glob("*/meta.json"))) == 1
    again = command_line(*command)
    assert again.code == 0 and again.err.count("was finished before") == 2
    assert [line for line in again.out.splitlines() if line.startswith("|")] == table


def test_the_table_keeps_the_sweeps_order_whichever_cell_ended_first(tmp_path, swept, capsys):
    (ended,) = (tmp_path / "o" / "sweeps").glob("*.jsonl")
    ended.write_text("".join(reversed(ended.read_text().splitlines(keepends=True))))
    sweep = SweepReport()
    sweep.list = ended
    sweep.on_multirun_end(OmegaConf.create({"outputs": str(tmp_path / "o")}))
    rows = [line.split("|")[1].strip() for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert rows[2:] == ["none", "atesc"]


def test_bad_input_in_one_cell_does_not_stop_the_others(tmp_path):
    done = command_line(*TINY, *DFQ, "-m", "defense=none", "student.steps=1,0", f"outputs={tmp_path / 'o'}")
    assert done.code == 1 and statuses(tmp_path) == ["done"]
    assert "steps must be at least 1, got 0" in done.out and "retry: dfkd" in done.out


def test_the_retry_knows_the_folder_of_the_users_own_options(tmp_path):
    own = tmp_path / "my conf"
    (own / "noise").mkdir(parents=True)
    done = command_line("--config-dir", str(own), "-m", *TINY, *DFQ, "student.steps=0", f"outputs={tmp_path / 'o'}")
    assert f"retry: dfkd '--config-dir={own}'" in done.out


def test_cells_beside_each_other_share_the_teacher_and_stand_in_their_order(tmp_path):
    # the last one fails
    sweep = ("-m", "hydra/launcher=parallel", *TINY, *DFQ, "student.steps=2,1,0", "outputs=o")
    done = process(*sweep, cwd=tmp_path)
    assert done.returncode == 1 and statuses(tmp_path) == ["done", "done"]
    assert len(list((tmp_path / "o" / "store" / "teacher").glob("*/meta.json"))) == 1
    assert [line.split("|")[1].strip() for line in done.stdout.splitlines() if line.startswith("|")][2:] == ["2", "1"]
    assert "[0]   student" in done.stderr and "[1]   student" in done.stderr  # whose line it is
    assert "steps must be at least 1, got 0" in done.stdout and "1 of 3 cells failed" in done.stdout


ENDLESS = ("limit={rounds:1000000,epochs:1,steps:2}", "synthesizer.rounds=1000000", "runtime.checkpoint_every=0.2")


@pytest.mark.parametrize(("number", "everybody"), [(signal.SIGTERM, False), (signal.SIGINT, True)])
def test_a_stopped_parallel_sweep_saves_and_takes_its_workers_along(tmp_path, number, everybody):
    # of three workers one has nothing to do: Ctrl-C in a terminal reaches it too
    launcher = ("-m", "hydra/launcher=parallel", "hydra.launcher.n_jobs=3", "seed=0,1", "outputs=o")
    command = [sys.executable, "-m", "dfkd", *launcher, *TINY, *DFQ, *ENDLESS]
    with (tmp_path / "log").open("w") as log:
        # a session of its own: the signal reaches the parent alone, as from a scheduler
        sweep = subprocess.Popen(
            command, cwd=tmp_path, env=process_environment(), stdout=log, stderr=log, start_new_session=True
        )
    try:
        wait_for(lambda: len(list((tmp_path / "o" / "store" / "student").glob(".*.checkpoint"))) == 2, seconds=60)
        assert [status(folder) for folder in (tmp_path / "o" / "runs").iterdir()] == ["running"] * 2
        os.killpg(sweep.pid, number) if everybody else sweep.send_signal(number)
        assert sweep.wait(timeout=60) == 1
        wait_for(lambda: not alive(sweep.pid), seconds=20)
    finally:
        if alive(sweep.pid):
            os.killpg(sweep.pid, signal.SIGKILL)
    said = (tmp_path / "log").read_text()
    assert "interrupted: what is done is kept" in said and "Traceback" not in said
    assert statuses(tmp_path) == ["interrupted"] * 2
    assert len(list((tmp_path / "o" / "store" / "student").glob(".*.checkpoint"))) == 2
    assert not list((tmp_path / "o" / "store").rglob("*.tmp"))


def test_a_signal_stops_the_cells_that_come_one_after_the_other(tmp_path, monkeypatch):
    from dfkd.distill import Distillation

    review = Distillation.review

    def stop_in_the_third_round(self, number):
        if number == 2:
            os.kill(os.getpid(), signal.SIGUSR1)
        return review(self, number)

    monkeypatch.setattr(Distillation, "review", stop_in_the_third_round)
    done = command_line("-m", *TINY, *DFQ, *ENDLESS, "seed=0,1", f"outputs={tmp_path / 'o'}")
    assert done.code == 1 and "interrupted: what is done is kept" in done.err
    assert statuses(tmp_path) == ["interrupted"]  # the other has not begun
    assert len(list((tmp_path / "o" / "store" / "student").glob(".*.checkpoint"))) == 1


def alive(group: int) -> bool:
    """Whether a process of the group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for(condition, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)
