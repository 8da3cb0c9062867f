"""Launchers of a sweep's cells. Hydra finds plugins only in the package hydra_plugins, so they are not in dfkd/."""

import json
import logging
import os
import shutil
import signal
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from hydra_plugins.hydra_joblib_launcher.joblib_launcher import JoblibLauncher
from omegaconf import DictConfig

from dfkd.errors import ConfigError
from dfkd.machine import devices, interrupt, processes
from dfkd.store.files import is_held
from dfkd.sweeps import ledger
from dfkd.sweeps.plan import plural

try:
    from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf
    from hydra_plugins.hydra_submitit_launcher.submitit_launcher import LocalLauncher, SlurmLauncher
except ImportError:  # without the pip extra `slurm` these launchers cannot be chosen
    LocalLauncher = SlurmLauncher = Launcher

log = logging.getLogger("dfkd")
IDLE = 10  # seconds after which a worker without a task ends: another sweep may wait for its device


class ParallelLauncher(JoblibLauncher):
    """joblib's launcher. A worker ends when it has had no task for `IDLE` seconds, and all workers end with this
    process, however it ends.

    Args:
        settings: options of the joblib plugin: n_jobs, batch_size, pre_dispatch and others of `joblib.Parallel`.
    """

    def __init__(self, **settings: object):
        of_workers = {"initializer": interrupt.end_with, "initargs": (os.getpid(),), "idle_worker_timeout": IDLE}
        super().__init__(**of_workers | settings)


class GpuLauncher(Launcher):
    """Runs cells in parallel, in `jobs_per_device` processes for every device. Each process claims a device
    (`dfkd.machine.devices`) and runs one cell after the other.

    Args:
        devices: names such as cuda:0; None for all visible CUDA devices. The names cpu:0, cpu:1, ... stand for
            processes on the CPU, to try the launcher.
        jobs_per_device: largest number of processes on a device, of this sweep and others with the same number.

    Raises:
        ConfigError: a device does not exist, or a cell sets runtime.device itself.
    """

    def __init__(self, devices: Sequence[str] | None, jobs_per_device: int):
        self.devices, self.jobs = devices and list(devices), jobs_per_device

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context = {"hydra_context": hydra_context, "task_function": task_function, "config": config}

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        names = self.names()
        for word in (word for words in job_overrides for word in words if word.startswith("runtime.device=")):
            if word != "runtime.device=auto":
                raise ConfigError(
                    f"{word}, but hydra/launcher=gpus hands the devices out: leave runtime.device=auto, and choose by "
                    f"hydra.launcher.devices=[cuda:0,cuda:1]"
                )
        workers = min(len(names) * self.jobs, len(job_overrides))
        joblib = ParallelLauncher(n_jobs=workers, batch_size=1)
        joblib.setup(**self.context)
        os.environ[devices.SWEEP_DEVICES] = json.dumps([names, self.jobs])
        try:
            return joblib.launch(job_overrides, initial_job_idx)
        finally:
            del os.environ[devices.SWEEP_DEVICES]

    def names(self) -> list[str]:
        if not isinstance(self.jobs, int) or self.jobs < 1:
            raise ConfigError(f"hydra.launcher.jobs_per_device must be a whole number of at least 1, got {self.jobs!r}")
        there = devices.visible()
        if self.devices is None and not there:
            raise ConfigError(
                "hydra/launcher=gpus: this machine has no usable CUDA device; cells beside each other on its CPU: "
                "hydra/launcher=parallel hydra.launcher.n_jobs=2"
            )
        missing = [name for name in self.devices or () if name not in there and not str(name).startswith("cpu:")]
        if missing or self.devices == []:
            raise ConfigError(
                f"hydra.launcher.devices={self.devices}: there is no {', '.join(map(str, missing)) or 'device in it'} "
                f"(devices: {', '.join(there) or 'none'})"
            )
        return self.devices or there


class Jobs:
    """Mixin that adds to the submitit plugin's launchers:

    - a job that is preempted or out of time saves first and is resumed later;
    - a job that dies fails its own cell only;
    - jobs write into the sweep's list, on whichever machine they run.
    """

    def __call__(self, *arguments: object, **more: object) -> JobReturn:
        """Run a cell. submitit calls this in the job."""
        from submitit import JobEnvironment

        os.environ.update(self.environment)
        run, warning = super().__call__, signal.Signals[f"SIG{JobEnvironment.USR_SIG}"]
        return interrupt.as_job(lambda: run(*arguments, **more), warning, waits=self._EXECUTOR == "slurm")

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        executor = self.executor()
        Path(self.config.hydra.sweep.dir).mkdir(parents=True, exist_ok=True)
        self.environment = ledger.variables()
        state, numbered = Singleton.get_state(), list(enumerate(job_overrides, initial_job_idx))
        calls = [(list(words), "hydra.sweep.dir", number, f"cell {number}", state) for number, words in numbered]
        jobs = executor.map_array(self, *zip(*calls, strict=True))
        log.info("%s submitted: %s; logs: %s", plural(len(jobs), "job"), ", ".join(ids(jobs)), jobs[0].paths.folder)
        try:
            return [outcome(job, number, list(words)) for job, (number, words) in zip(jobs, numbered, strict=True)]
        except KeyboardInterrupt:
            self.leave(jobs)
            raise

    def executor(self) -> object:
        """Return a submitit executor with the options of hydra.launcher."""
        import submitit

        def name(key: str) -> str:
            return key if key in shared else f"{self._EXECUTOR}_{key}"

        shared = {field.name for field in fields(BaseQueueConf)}
        settings = dict(self.params)
        first = {"folder": settings.pop("submitit_folder")}
        if "max_num_timeout" in settings:
            first[name("max_num_timeout")] = settings.pop("max_num_timeout")
        executor = submitit.AutoExecutor(cluster=self._EXECUTOR, **first)
        executor.update_parameters(**{name(key): value for key, value in settings.items()})
        return executor


class SlurmJobs(Jobs, SlurmLauncher):
    """Runs every cell as a SLURM job; all jobs are one array.

    Raises:
        ConfigError: this machine has no sbatch or srun.
    """

    def executor(self) -> object:
        if not all(map(shutil.which, ("sbatch", "srun"))):
            raise ConfigError(
                "hydra/launcher=slurm: there is no sbatch or srun on this machine; on one of several GPUs: "
                "hydra/launcher=gpus; to try how jobs work: hydra/launcher=slurm_local"
            )
        return super().executor()

    def leave(self, jobs: list) -> None:
        """Log, when the sweep is interrupted, that the jobs go on, and how to stop them."""
        text = "the jobs go on without this process; `scancel %s` stops them too, and each saves where it is"
        log.warning(text, " ".join(ids(jobs)))


class LocalJobs(Jobs, LocalLauncher):
    """Like `SlurmJobs`, but the jobs are processes of this machine, all started at once."""

    def leave(self, jobs: list) -> None:
        """When the sweep is interrupted, let all jobs save and stop, also those that begin their cell only then. Each
        gets one signal only, since a second one would interrupt the writing of its status."""
        signalled: set[int] = set()
        while not all(job.done() for job in jobs):
            running = [row for row in ledger.last_rows() if row["status"] == "running" and "job" in row]
            for row in running:
                if row["job"] not in signalled and is_held(Path(row["folder"]) / ".lock"):
                    signalled.add(row["job"])
                    processes.send_signal(row["job"], row.get("started"), signal.SIGTERM)
            time.sleep(0.2)


def ids(jobs: list) -> list[str]:
    """Return the SLURM job ids of these jobs; the jobs of one array share one id."""
    return list(dict.fromkeys(job.job_id.partition("_")[0] for job in jobs))


def outcome(job: object, number: int, words: list[str]) -> JobReturn:
    """Wait for a job. One that has died (out of memory, cancelled, lost machine) returns None, and its cell is marked
    as failed in the sweep's list.

    Args:
        job: a job of submitit.
        number: number of its cell in the sweep.
        words: overrides of the cell.
    """
    try:
        return job.results()[0]
    except Exception as error:
        last = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        text = f"job {job.job_id} ended without a result ({job.state}): {last}\n  log: {job.paths.stdout}"
        ledger.mark_lost(number, words, text)
        return JobReturn(status=JobStatus.COMPLETED)
