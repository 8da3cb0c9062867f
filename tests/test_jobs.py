"""Cells as jobs of a scheduler: with submitit's local executor, and with the commands of a SLURM of one machine."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import fake_slurm
import pytest
from hydra.core.config_store import ConfigStore
from killing import ENDLESS, alive, statuses, wait_for
from runner import DFQ, TINY, command_line, process, process_environment, read_json, run, write_component

plugin = pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="needs the extra `slurm`")

SYNTHESIZERS = '''
import os
import signal
import threading
from pathlib import Path

from dfkd.synthesizers import DFQ


def for_the_first_time() -> bool:
    try:
        Path("struck").touch(exist_ok=False)
        return True
    except FileExistsError:
        return False


class Warned(DFQ):
    """Is taken the machine from, once, in the third round: as submitit's local executor does it."""

    def synthesize(self, rounds, *others, **more):
        if rounds.start == 2 and for_the_first_time():
            os.kill(os.getpid(), signal.SIGUSR2)
        return super().synthesize(rounds, *others, **more)


class Preempted(DFQ):
    """The same before there is anything to save, as SLURM does it: with time between the two signals."""

    def check(self, network):
        if for_the_first_time():
            threading.Timer(1, os.kill, (os.getpid(), signal.SIGUSR2)).start()
            os.kill(os.getpid(), signal.SIGTERM)


class Dead(DFQ):
    """Is killed for its memory, say."""

    def check(self, network):
        os.kill(os.getpid(), signal.SIGKILL)
'''
OPTION = "defaults:\n  - dfq\n  - _self_\n_target_: strikes.{}\n"
# It is the signal that has the state saved, and no clock.
FOUR = (*TINY, "limit={rounds:4,epochs:1,steps:2}", "synthesizer.rounds=4", "runtime.checkpoint_every=60", *DFQ)


@pytest.fixture
def own(tmp_path):
    """The arguments that make the synthesizers above options."""
    names = {f"synthesizer__{name.lower()}": OPTION.format(name) for name in ("Warned", "Preempted", "Dead")}
    write_component(tmp_path, "strikes", SYNTHESIZERS, **names)
    return ("--config-dir", str(tmp_path / "options"))


def logs(folder: Path) -> str:
    return "".join(file.read_text() for file in (folder / "sweeps" / "slurm").glob("*_log.out"))


@pytest.mark.exhaustive
def test_a_preempted_job_saves_and_goes_on_and_one_that_dies_fails_no_other(tmp_path, own):
    sweep = (*own, "hydra/launcher=slurm_local", "synthesizer=warned,dead", *FOUR)
    done = process("-m", *sweep, "outputs=o", cwd=tmp_path)
    assert done.returncode == 1 and "1 of 2 cells failed" in done.stdout, done.stderr
    assert "ended without a result" in done.stdout and "retry: dfkd" in done.stdout
    (log,) = (line.partition("log: ")[2] for line in done.stdout.splitlines() if "log: " in line)
    assert "[1]" in Path(log).read_text()  # which says how far it came
    assert "Requeued job" in logs(tmp_path / "o") and "resumed at round 2 of 4" in logs(tmp_path / "o")
    (result,) = (read_json(file) for file in (tmp_path / "o").glob("runs/*/result.json"))
    calm = run(tmp_path / "calm", *FOUR)
    for key in ("student", "teacher", "validation", "student_digest", "teacher_evals"):
        assert result[key] == calm[key]


@pytest.mark.exhaustive  # half a minute of processes
def test_an_array_of_slurm(tmp_path, own):
    path = f"{fake_slurm.install(tmp_path / 'bin')}{os.pathsep}{os.environ['PATH']}"
    limits = ("hydra.launcher.array_parallelism=2", "hydra.launcher.timeout_min=90", "hydra.launcher.partition=short")
    sweep = (*own, "hydra/launcher=slurm", *limits, "synthesizer=preempted", *FOUR, "until=premise", "seed=0,1")
    done = process("-m", *sweep, "outputs=o", cwd=tmp_path, PATH=path)
    assert done.returncode == 0, done.stderr + done.stdout
    script = (tmp_path / "bin" / "submitted.sh").read_text()
    for flag in ("array=0-1%2", "time=90", "partition=short", "signal=USR2@120", "gpus-per-node=1", "mem=16GB"):
        assert f"#SBATCH --{flag}" in script
    assert "2 jobs submitted: 7; logs: " in done.stderr
    assert logs(tmp_path / "o").count("Requeued job 7_") == 1
    assert len(list((tmp_path / "o").glob("runs/*/result.json"))) == 2


@pytest.mark.exhaustive
def test_a_stopped_sweep_lets_its_local_jobs_save_and_leaves_none(tmp_path):
    sweep = ("hydra/launcher=slurm_local", *TINY, *DFQ, *ENDLESS, "outputs=o")
    with (tmp_path / "log").open("w") as log:
        parent = subprocess.Popen(
            [sys.executable, "-m", "dfkd", "-m", *sweep],
            cwd=tmp_path,
            env=process_environment(),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait_for(lambda: len(list((tmp_path / "o" / "store" / "student").glob(".*.checkpoint"))) >= 1, seconds=90)
        parent.send_signal(signal.SIGTERM)
        assert parent.wait(timeout=60) == 1
        wait_for(lambda: not alive(parent.pid), seconds=20)
    finally:
        if alive(parent.pid):
            os.killpg(parent.pid, signal.SIGKILL)
    assert "interrupted: what is done is kept" in (tmp_path / "log").read_text()
    assert statuses(tmp_path) == ["interrupted"]


def test_without_slurm_or_its_extra_one_message_says_what_to_do(tmp_path, monkeypatch):
    sweep = ("-m", *TINY, "seed=0,1", f"outputs={tmp_path / 'o'}")
    monkeypatch.setattr(shutil, "which", lambda name, *_, **__: None)
    done = command_line(*sweep, "hydra/launcher=slurm")
    assert done.code == 1 and "no sbatch or srun on this machine" in done.err and "slurm_local" in done.err
    monkeypatch.setitem(ConfigStore.instance().repo["hydra"], "launcher", {})
    for name in ("slurm", "slurm_local"):
        done = command_line(*sweep, f"hydra/launcher={name}")
        assert done.code == 1
        assert done.err == "dfkd: hydra/launcher=slurm and slurm_local need an extra: pip install 'dfkd[slurm]'\n"


def test_a_dry_run_submits_nothing(tmp_path):
    done = command_line("-m", *TINY, "hydra/launcher=slurm", "seed=0,1", "dry_run=true", f"outputs={tmp_path / 'o'}")
    assert done.code == 0 and "2 to run; will train 2 teachers" in done.out, done.err
