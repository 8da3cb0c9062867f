"""Which GPU a process works on, so that two of them share one only where that was asked for. Imports no torch.

A process claims a device by a flock on a file of this machine, one for every physical device, and keeps it as long as
it lives; the system lets go of it however the process ends. There are two ways to hold a device:

- a cell of `hydra/launcher=gpus` holds it alone (or beside `jobs_per_device` - 1 cells of sweeps that ask for as many),
  and waits until one is free;
- every other run shares its device with others of its kind. `runtime.device=auto` takes one that is free if there is,
  and keeps off those that are held alone: it waits for one. `runtime.device=cuda:1` takes just that, and at once.
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

FOLDER = "DFKD_DEVICE_LOCKS"  # environment variable: folder of the lock files, of all users and containers of a machine
OURS = "DFKD_DEVICES"  # environment variable: what the cells of this sweep choose from, [devices, jobs per device]
POLL = 0.5  # seconds from one look for a free device to the next


@dataclass
class Claim:
    """A device that this process holds: its name, and the open files whose locks say so."""

    name: str
    files: list[IO]


held: Claim | None = None


def visible() -> list[str]:
    """The names of the CUDA devices that this process may use. Does not initialise CUDA."""
    import torch

    return [f"cuda:{number}" for number in range(torch.cuda.device_count())]


def claim(wanted: str) -> None:
    """Hold a device until this process ends or claims another; `held` tells which. Does nothing where there is no GPU,
    or none is wanted.

    Args:
        wanted: runtime.device.

    Raises:
        ConfigError: the locks of this machine's devices cannot be used, and a cell of `hydra/launcher=gpus` needs them.
    """
    global held
    ours = wanted == "auto" and OURS in os.environ
    names, jobs = json.loads(os.environ[OURS]) if ours else (gpus(wanted), None)
    if held is not None and held.name in names:
        return
    let_go()
    if not names:
        return
    must_wait = jobs is not None or wanted == "auto"
    try:
        held = first_free(names, jobs)
        if held is None:
            text = "waiting for a device: other runs hold %s" if must_wait else "%s is held by another run too"
            log.info(text, ", ".join(names))
        while held is None and must_wait:
            time.sleep(POLL)
            held = first_free(names, jobs)
    except OSError as error:
        if jobs is not None:
            raise ConfigError(
                f"the devices of this machine cannot be locked ({error}): set {FOLDER} to a folder that all who use "
                f"them may write to"
            ) from error


def let_go() -> None:
    """Give back what this process holds."""
    global held
    for file in held.files if held else ():
        file.close()
    held = None


def gpus(wanted: str) -> list[str]:
    """The CUDA devices that runtime.device may mean; none if it means no GPU, or one that is not there."""
    if not str(wanted).startswith(("auto", "cuda")):
        return []
    shared = wanted == "cuda" or distributed.ranks() > 1
    name = f"cuda:{distributed.local_rank()}" if shared else wanted
    return [device for device in visible() if name in ("auto", device)]


def first_free(names: list[str], jobs: int | None) -> Claim | None:
    """Hold the first device that can be held.

    Args:
        jobs: how many processes of this kind may be on a device; None: any number, but rather none.
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
                files = files if locked(files[0], fcntl.LOCK_SH) else None  # it was free; others may join
            if files:
                return Claim(name, files)
    return None


def hold(key: str, how: int, slot: int | None) -> list[IO] | None:
    """Lock a device, and one of its places if it is shared by a number of processes; the open files, or None."""
    wanted = [(key, how)] + ([] if slot is None else [(f"{key}.{slot}", fcntl.LOCK_EX)])
    files = []
    for name, lock in wanted:
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
    """The open lock file of a name. Any user of the machine may open it, whoever made it."""
    folder = Path(os.environ.get(FOLDER, "/tmp/dfkd-devices"))
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o1777)
    path = folder / f"{name}.lock"
    try:
        return path.open()  # a file of another user in such a folder may not be opened to create or write it
    except FileNotFoundError:
        path.touch()
        path.chmod(0o644)
        return path.open()


def identity(name: str) -> str:
    """What a device is called by all processes of the machine, however its devices are numbered for them."""
    if not name.startswith("cuda"):
        return name
    import torch

    number = int(name.partition(":")[2])
    listed = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    if number < len(listed) and listed[number].startswith("MIG-"):
        return listed[number].replace("/", "_")  # a part of a GPU, whose own name the properties may not tell
    return f"cuda-{getattr(torch.cuda.get_device_properties(number), 'uuid', number)}"
