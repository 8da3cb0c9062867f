"""Shared by the tests of runs that are killed: break a run off between two steps, see what its parts hold."""

import contextlib
import hashlib
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import torch
from runner import read_json

from dfkd.config.cell import Cell
from dfkd.machine.clock import Clock
from dfkd.resume.checkpoints import Checkpoints
from dfkd.resume.state import CannotSave, Extractor, ObjectState

# What may differ between two runs of the same numbers, also if somebody commits meanwhile.
TIMES = ("seconds", "seconds_this_run", "peak_memory_mb", "stages", "config", "commit", "files", "digest")

# Overrides of a run that ends only if it is stopped.
ENDLESS = ("limit={rounds:1000000,epochs:1,steps:2}", "synthesizer.rounds=1000000", "runtime.checkpoint_every=0.2")


class Killed(BaseException):
    """Nothing handles it, as nothing handles SIGKILL."""


@contextlib.contextmanager
def watched(kill_at: int | None = None) -> Iterator[list[tuple]]:
    """Inside the block, note every step of every loop, and break off right after that of the given number.

    Yields:
        (position in the loops, digest of all that the parts hold) of every step.
    """
    seen, passed = [], Checkpoints.passed

    def watch(self: Checkpoints, loop, number: int) -> None:
        passed(self, loop, number)
        if self.file is None:
            return
        held = "unknown"
        with contextlib.suppress(CannotSave):
            held = digest(self._extract()[1])
        seen.append((self._name, *((loop.id, loop.number) for loop in self._loops), held))
        if len(seen) == kill_at:
            raise Killed

    with mock.patch.object(Checkpoints, "passed", watch):
        yield seen


def digest(data: object) -> str:
    found = hashlib.sha256()

    def add(node: object) -> None:
        if isinstance(node, ObjectState):
            found.update(node.kind.encode())
            if node.kind != Clock.__name__:
                add(node.data)
        elif isinstance(node, Counter):
            pass  # evaluations of a whole process, with other stages before: what counts is their difference
        elif isinstance(node, torch.Tensor):
            found.update(str((node.dtype, node.shape, node.stride())).encode())
            found.update(node.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes() if node.numel() else b"")
        elif isinstance(node, dict):
            for key, value in node.items():
                found.update(repr(key).encode())
                add(value)
        elif isinstance(node, list | tuple):
            found.update(str(len(node)).encode())
            for item in node:
                add(item)
        else:
            found.update(repr(node).encode())

    add(data)
    return found.hexdigest()


def holds(thing: object) -> str:
    """Digest of what an object holds."""
    return digest(Extractor()(thing, "thing"))


def numbers(result: dict) -> dict:
    return {key: value for key, value in result.items() if key not in TIMES}


def outcome(cell: Cell) -> dict[str, bytes]:
    """The bytes of everything a cell leaves that is no time and no picture."""
    found = [*cell.folder.glob("*"), *(cell.outputs / "store").glob("*/*/*")]
    kept = [file for file in found if file.suffix in (".safetensors", ".jsonl")]
    return {str(file.relative_to(cell.outputs)): file.read_bytes() for file in kept}


def forget(cell: Cell, *stages: str) -> None:
    """Remove a cell and some of its stages, as if they had never been made."""
    for folder in (cell.folder, *(cell.outputs / "store" / stage for stage in stages)):
        shutil.rmtree(folder, ignore_errors=True)


def left_over(outputs: Path) -> list[str]:
    """What is in a store beside artifacts and locks."""
    return [file.name for file in (outputs / "store").glob("*/.*") if file.suffix != ".lock"]


def alive(group: int) -> bool:
    """Whether a process of the group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for(condition: Callable[[], object], seconds: float) -> None:
    """Wait until the condition holds; a failure after so many seconds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def statuses(folder: Path) -> list[str]:
    """What the run folders below `o` say of their state, sorted."""
    return sorted(read_json(file)["status"] for file in folder.glob("o/runs/*/status.json"))
