"""Starts `dfkd` as a user does, in a process of its own that ends with the half."""

import sys
from pathlib import Path

from gpu import clock

DFKD = (sys.executable, "-m", "dfkd")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1", "-m", "dfkd")
BESIDE = 6  # cells at once on a GPU, of digits, which leave it idle most of the time


class CommandFailed(RuntimeError):
    """A command did not end as it should."""


def run(words: list[str], folder: Path, deadline: clock.Deadline, start: tuple[str, ...] = DFKD) -> str:
    """Run `dfkd WORDS` in a folder, and return what it printed.

    Args:
        start: the words that start dfkd: DFKD or TORCHRUN.

    Raises:
        TimeUp: it was stopped before the deadline (`clock.run`).
        CommandFailed: it ended with an error; the message has its last line.
    """
    folder.mkdir(parents=True, exist_ok=True)
    printed = folder / "printed.txt"
    with printed.open("w") as out:
        code = clock.run([*start, *words], deadline, cwd=folder, stdout=out, stderr=out)
    text = printed.read_text()
    if code:
        last = (text.strip().splitlines() or ["it printed nothing"])[-1]
        raise CommandFailed(f"dfkd {' '.join(words)} ended with {code}: {last}")
    return text


def beside(device: str) -> list[str]:
    """Return the options of a sweep whose cells share a GPU, BESIDE at once; on a CPU they take turns."""
    if not device.startswith("cuda"):
        return ["hydra/launcher=basic", f"runtime.device={device}", "runtime.threads=1"]
    named = [f"hydra.launcher.devices=[{device}]"] if ":" in device else []
    return ["hydra/launcher=gpus", *named, f"hydra.launcher.jobs_per_device={BESIDE}", "runtime.threads=1"]
