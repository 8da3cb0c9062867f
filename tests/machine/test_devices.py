"""Who works on which device: processes of their own, with places on the CPU as GPUs."""

import json
import os
import select
import subprocess
import sys
import threading

import pytest
from runner import TINY, command_line, process, process_environment

from dfkd.errors import ConfigError
from dfkd.machine import devices, runtime

TWO = ["cpu:0", "cpu:1"]
WORKER = """
import sys, time
from dfkd.machine import devices
devices.POLL = 0.02
devices.claim("auto")
print(devices._claim.name, flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """Locks of its own, and two GPUs."""
    monkeypatch.setenv(devices.FOLDER, str(tmp_path / "locks"))
    monkeypatch.setattr(devices, "visible", lambda: ["cuda:0", "cuda:1"])
    monkeypatch.setattr(devices, "identity", lambda name: name.replace("cuda", "cpu"))
    monkeypatch.setattr(devices, "POLL", 0.02)
    monkeypatch.delenv(devices.SWEEP_DEVICES, raising=False)
    yield
    devices.release()


@pytest.fixture
def start(tmp_path):
    """Start a cell of `hydra/launcher=gpus` in a process that then prints which device it holds."""
    started = []

    def go(names=TWO, jobs=1) -> subprocess.Popen:
        environment = process_environment(**{devices.SWEEP_DEVICES: json.dumps([names, jobs])})
        started.append(
            subprocess.Popen([sys.executable, "-c", WORKER], env=environment, stdout=subprocess.PIPE, text=True)
        )
        return started[-1]

    yield go
    for one in started:
        one.kill()
        one.wait()


def holds(worker: subprocess.Popen) -> str:
    """The device that a worker has come to hold."""
    return worker.stdout.readline().strip()


def kill(worker: subprocess.Popen) -> None:
    """SIGKILL."""
    worker.kill()
    worker.wait()


def test_a_device_has_one_process_and_is_free_again_when_that_is_killed(start):
    pair = {holds(worker): worker for worker in (start(), start())}
    assert set(pair) == set(TWO)
    third = start()
    assert not select.select([third.stdout], [], [], 1)[0]  # it has looked many times
    kill(pair["cpu:1"])
    assert holds(third) == "cpu:1"


def test_processes_that_share_a_device_are_spread_and_not_more_than_said(start):
    workers = [start(jobs=2) for _ in range(4)]
    names = [holds(worker) for worker in workers]
    assert sorted(names) == ["cpu:0", "cpu:0", "cpu:1", "cpu:1"]
    assert devices.first_free(TWO, 2) is None and devices.first_free(TWO, 1) is None
    kill(workers[0])
    assert devices.first_free(TWO, 1) is None  # the other is still there
    assert devices.first_free(TWO, 2).name == names[0]


def test_a_single_run_takes_a_free_device_and_shares_with_its_kind():
    claims = [devices.first_free(TWO, None) for _ in range(3)]
    assert [claim.name for claim in claims] == ["cpu:0", "cpu:1", "cpu:0"]
    assert devices.first_free(TWO, 1) is None  # a sweep keeps off all of them
    claims[1].files[0].close()
    assert devices.first_free(TWO, 1).name == "cpu:1"


def test_auto_keeps_off_a_sweep_and_waits(start, caplog):
    caplog.set_level("INFO", "dfkd")
    workers = [start([name]) for name in TWO]
    assert [holds(worker) for worker in workers] == TWO
    waiting = threading.Thread(target=devices.claim, args=("auto",), daemon=True)
    waiting.start()
    waiting.join(0.3)
    assert waiting.is_alive() and caplog.messages == ["waiting for a device: other runs hold cuda:0, cuda:1"]
    kill(workers[1])
    waiting.join(20)
    assert devices._claim.name == "cuda:1" and len(caplog.messages) == 1


def test_a_device_that_is_named_is_taken_at_once_and_marked(start, caplog):
    caplog.set_level("INFO", "dfkd")
    assert holds(start(["cpu:0"])) == "cpu:0"
    assert devices.claim("cuda") == "cuda"
    assert devices._claim is None and caplog.messages == ["cuda:0 is held by another run too"]
    devices.claim("cuda:1")
    assert devices._claim.name == "cuda:1" and devices.first_free(["cpu:1"], 1) is None
    assert devices.claim("auto") == "cuda:1"  # a process keeps what it has


@pytest.mark.parametrize("wanted", ["cpu", "cuda:7", "gpu", None])
def test_nothing_is_claimed_where_no_gpu_is_meant(wanted, tmp_path):
    assert devices.claim(wanted) == wanted
    assert devices._claim is None and not (tmp_path / "locks").exists()


def test_locks_that_cannot_be_made_stop_only_who_needs_them(tmp_path, monkeypatch):
    (tmp_path / "locks").write_text("no folder")
    assert devices.claim("auto") == "auto" and devices._claim is None
    monkeypatch.setenv(devices.SWEEP_DEVICES, json.dumps([TWO, 1]))
    with pytest.raises(ConfigError, match="set DFKD_DEVICE_LOCKS to a folder that all"):
        devices.claim("auto")


def test_lock_files_are_for_all_users(tmp_path):
    before = os.umask(0o077)
    try:
        devices.lock_file("cpu:0").close()
    finally:
        os.umask(before)
    folder = tmp_path / "locks"
    assert folder.stat().st_mode & 0o7777 == 0o1777 and (folder / "cpu:0.lock").stat().st_mode & 0o777 == 0o644


GPUS = ("-m", "hydra/launcher=gpus")


def test_without_a_gpu_the_other_launcher_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "visible", list)
    done = command_line(*GPUS, *TINY[2:], "runtime.device=auto", "seed=0,1", f"outputs={tmp_path / 'o'}")
    assert done.code == 1 and "no usable CUDA device" in done.err and "hydra/launcher=parallel" in done.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["runtime.device=cuda:1"], "leave runtime.device=auto, and choose by hydra.launcher.devices="),
        (["hydra.launcher.devices=[cuda:9]"], "there is no cuda:9 (devices: cuda:0, cuda:1)"),
        (["hydra.launcher.devices=[]"], "there is no device in it"),
        (["hydra.launcher.jobs_per_device=0"], "must be a whole number of at least 1, got 0"),
    ],
)
def test_what_the_launcher_cannot_do(tmp_path, words, said):
    done = command_line(*GPUS, "debug=smoke", *words, "seed=0,1", f"outputs={tmp_path / 'o'}")
    assert done.code == 1 and said in done.err and done.err.count("dfkd: ") == 1


@pytest.mark.exhaustive
def test_cells_of_a_sweep_run_each_on_a_device_of_its_own(tmp_path):
    words = (*TINY, "until=premise", "outputs=o")
    words = ["runtime.device=auto" if word.startswith("runtime.device") else word for word in words]
    sweep = (*GPUS, "hydra.launcher.devices=[cpu:0,cpu:1]", *words, "seed=0,1,2")
    done = process(*sweep, cwd=tmp_path, **{devices.FOLDER: str(tmp_path / "locks")})
    assert done.returncode == 0, done.stderr
    # the second is only looked at where the first is taken
    assert {file.name for file in (tmp_path / "locks").iterdir()} == {"cpu:0.lock", "cpu:1.lock"}
    assert len(list((tmp_path / "o" / "runs").glob("*/result.json"))) == 3
    (ended,) = (tmp_path / "o" / "sweeps").glob("*.jsonl")
    assert [json.loads(line)["arguments"][-1] for line in ended.read_text().splitlines()] == [
        "seed=0",
        "seed=1",
        "seed=2",
    ]


def test_what_is_held_is_what_auto_means_and_a_dry_run_holds_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv(devices.SWEEP_DEVICES, json.dumps([["cpu:1"], 1]))
    assert runtime.make_runtime(devices.claim("auto")).device.type == "cpu"
    devices.release()
    words = [word for word in TINY if not word.startswith("runtime.device")]
    done = command_line(*words, "dry_run=true", f"outputs={tmp_path / 'o'}")
    assert done.code == 0 and devices._claim is None
