"""Launchers of a sweep's cells. They stand here, and not in dfkd/, since Hydra takes them from this package only."""

import json
import os
from collections.abc import Sequence

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from hydra_plugins.hydra_joblib_launcher.joblib_launcher import JoblibLauncher
from omegaconf import DictConfig

from dfkd import devices
from dfkd.errors import ConfigError

IDLE = 10  # seconds after which a worker ends that has nothing left to do: another sweep may wait for its device


class GpuLauncher(Launcher):
    """A process for every device; each claims one (`dfkd.devices`) and takes cell after cell.

    Args:
        devices: names such as cuda:0; all that are visible if None. cpu:0, cpu:1, ... are places on the CPU: to try it.
        jobs_per_device: how many processes share a device, of this sweep and others that ask for as many.

    Raises:
        ConfigError: there is no such device, or a cell chooses its own.
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
        joblib = JoblibLauncher(n_jobs=workers, batch_size=1, idle_worker_timeout=IDLE)
        joblib.setup(**self.context)
        os.environ[devices.OURS] = json.dumps([names, self.jobs])
        try:
            return joblib.launch(job_overrides, initial_job_idx)
        finally:
            del os.environ[devices.OURS]

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
