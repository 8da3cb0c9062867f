"""Assigns GPUs to processes, so that two processes share a GPU only if the user asked for it.

torch is imported only to list and identify devices.

A process claims a device by a flock on a file of this machine; every physical device has one. The process holds the
lock until it ends, however it ends; then the operating system releases it. There are two ways to hold a device:

- A cell of `hydra/launcher=gpus` waits for a free device and holds it exclusively, or shares it with up to
  `jobs_per_device` - 1 other cells of sweeps with the same `jobs_per_device`.
- Every other run shares its device with other runs of this second kind. `runtime.device=auto` prefers a free device,
  avoids those that a `gpus` cell holds, and waits if there is no other. `runtime.device=cuda:1` takes that device
  immediately.
"""

import fcntl
import json
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from dfkd.errors import ConfigError
from dfkd.machine import distributed

log = logging.getLogger("dfkd")

FOLDER = "DFKD_DEVICE_LOCKS"  # environment variable: folder of the lock files, shared by all users and containers
SWEEP_DEVICES = "DFKD_DEVICES"  # environment variable: JSON [devices, jobs per device] for the cells of this sweep
POLL = 0.5  # seconds between two attempts to find a free device


@dataclass
class Claim:
    """A device that this process holds: its name, and the open files that this process has locked for it."""

    name: str
    files: list[IO]


_claim: Claim | None = None  # global, as the locks are the process's: all cells that it runs compute on one device


def visible() -> list[str]:
    """Return the names of the CUDA devices that this process may use, such as 'cuda:0'. Does not initialise CUDA."""
    import torch

    return [f"cuda:{number}" for number in range(torch.cuda.device_count())]


def claim(wanted: str) -> str:
    """Claim a device until this process ends or claims another.

    Does nothing if there is no GPU, or if `wanted` names none. If the locks cannot be used, the process goes on without
    a claim, except in a cell of `hydra/launcher=gpus`.

    Args:
        wanted: runtime.device.

    Returns:
        the device to compute on: `wanted`, or the claimed one if that is 'auto'. Several ranks choose theirs by their
        number.

    Raises:
        ConfigError: this is a cell of `hydra/launcher=gpus`, and the locks of this machine's devices cannot be used.
    """
    global _claim
    is_handed_out = wanted == "auto" and SWEEP_DEVICES in os.environ
    names, jobs = json.loads(os.environ[SWEEP_DEVICES]) if is_handed_out else (gpus(wanted), None)
    if _claim is None or _claim.name not in names:
        release()
        try:
            _claim = _take_one(names, jobs, must_wait=wanted == "auto") if names else None
        except OSError as error:
            if jobs is not None:
                raise ConfigError(
                    f"the devices of this machine cannot be locked ({error}): set {FOLDER} to a folder that all who "
                    f"use them may write to"
                ) from error
    if wanted != "auto" or _claim is None or distributed.ranks() > 1:
        return wanted
    return _claim.name if _claim.name.startswith("cuda") else "cpu"


def _take_one(names: list[str], jobs: int | None, must_wait: bool) -> Claim | None:
    """Hold one of these devices (`first_free`). If all are held by others, wait for one, or return None."""
    free = first_free(names, jobs)
    if free is None:
        text = "waiting for a device: other runs hold %s" if must_wait else "%s is held by another run too"
        log.info(text, ", ".join(names))
    while free is None and must_wait:
        time.sleep(POLL)
        free = first_free(names, jobs)
    return free


def release() -> None:
    """Release the device that this process holds, if any."""
    global _claim
    for file in _claim.files if _claim else ():
        file.close()
    _claim = None


def gpus(wanted: str) -> list[str]:
    """Return the names of the CUDA devices that a value of runtime.device allows; an empty list if it names no GPU, or
    one that does not exist.

    'cuda', and every value if there are several ranks, allows only the device of the local rank.
    """
    if not str(wanted).startswith(("auto", "cuda")):
        return []
    shared = wanted == "cuda" or distributed.ranks() > 1
    name = f"cuda:{distributed.local_rank()}" if shared else wanted
    return [device for device in visible() if name in ("auto", device)]


def first_free(names: list[str], jobs: int | None) -> Claim | None:
    """Hold the first device that can be held, without waiting; None if there is none.

    Args:
        names: the devices to try, in this order.
        jobs: largest number of processes of this kind on one device. None: any number, but a device without other
            processes is preferred.
    """
    if jobs is None:
        ways = [(fcntl.LOCK_EX, None), (fcntl.LOCK_SH, None)]
    elif jobs == 1:
        ways = [(fcntl.LOCK_EX, None)]
    else:
        ways = [(fcntl.LOCK_SH, slot) for slot in range(jobs)]
    for how, slot in ways:
        for name in names:
            files = hold(identity(name), how, slot)
            if files and jobs is None and how == fcntl.LOCK_EX:
                files = files if locked(files[0], fcntl.LOCK_SH) else None  # it was free; now others may share it
            if files:
                return Claim(name, files)
    return None


def hold(key: str, how: int, slot: int | None) -> list[IO] | None:
    """Lock a device, and one of its slots if a fixed number of processes may share it, without waiting.

    Args:
        key: the device's `identity`.
        how: fcntl.LOCK_EX to hold the device exclusively, or fcntl.LOCK_SH to share it.
        slot: number of the slot to lock too; None for no slot.

    Returns:
        the locked files, still open; None if another process holds one of the locks.
    """
    locks = [(key, how)] + ([] if slot is None else [(f"{key}.{slot}", fcntl.LOCK_EX)])
    files = []
    for name, lock in locks:
        files.append(lock_file(name))
        if not locked(files[-1], lock):
            for file in files:
                file.close()
            return None
    return files


def locked(file: IO, how: int) -> bool:
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def lock_file(name: str) -> IO:
    """Open the lock file of this name, created if missing. Every user of the machine may open it, whichever user
    created it."""
    folder = Path(os.environ.get(FOLDER, "/tmp/dfkd-devices"))
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o1777)
    path = folder / f"{name}.lock"
    try:
        return path.open()  # for reading: in a sticky folder a user may not open another user's file with O_CREAT
    except FileNotFoundError:
        path.touch()
        path.chmod(0o644)
        return path.open()


def identity(name: str) -> str:
    """Return a name of a device that is the same in all processes, whatever their CUDA_VISIBLE_DEVICES."""
    if not name.startswith("cuda"):
        return name
    import torch

    number = int(name.partition(":")[2])
    listed = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    if number < len(listed) and listed[number].startswith("MIG-"):
        return listed[number].replace("/", "_")  # a MIG instance: the device properties may not have its own UUID
    return f"cuda-{getattr(torch.cuda.get_device_properties(number), 'uuid', number)}"
