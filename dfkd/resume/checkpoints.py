"""Checkpoints of stages: the state of a stage is saved at intervals, and the next run resumes from it.

A stage names the objects that it depends on (`register`) and takes its steps in loops (`loop`), which may be nested.
Between two steps no such object is changing: there the state is saved if a checkpoint is due, and there a signal stops
the run. The next run of the same stage creates all objects anew and reaches the same loops. It skips the finished ones,
restores the state in the loop in which the run was stopped, and continues at the next step. The result is the same to
the last bit.

If several ranks make a stage together (`dfkd.machine.distributed`), their state is the same: the first rank saves it,
all ranks resume from it, and they stop at the same step. Loops in which each rank computes on its own are plain ranges.

`dfkd.resume.state` decides what belongs to the state; `dfkd.resume.statefile` writes and reads the file.
"""

import contextlib
import copy
import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from dfkd.machine import distributed, interrupt
from dfkd.resume.random_state import random_state, restore_random_state
from dfkd.resume.resumable_loop import ResumableLoop
from dfkd.resume.state import CannotSave, CheckpointMismatch, Extractor, Restorer
from dfkd.resume.statefile import read, write

log = logging.getLogger("dfkd")
SHARE = 0.1  # of the run's time; a warning is logged if saving takes more


class Checkpoints:
    """Saves the state of the stage that a run is in, and restores it. Outside of a stage its loops are plain ranges.

    Args:
        every: seconds from one checkpoint to the next; 0: after every step; None: never.
        device: device of the run.

    Attributes:
        file: path of the stage's checkpoint; None outside of a stage.
        rows: rows of the stage's metrics so far. They are part of the checkpoint; a resumed stage begins with them.
        between: called between the steps of a stage's loops; reset for every stage.
    """

    def __init__(self, every: float | None = None, device: torch.device | str = "cpu"):
        self.every, self.device = every, torch.device(device)
        self._clear()

    def _clear(self) -> None:
        self.file: Path | None = None
        self.rows: list[dict] = []
        self.between: Callable[[], None] = lambda: None
        self._registered: dict[str, Any] = {}
        self._loops: list[ResumableLoop] = []
        self._entered = [Counter()]  # for every depth of nested loops: {name: how many loops of that name were entered}
        self._first_outline: dict[str, Any] = {}  # outline (`Extractor.outline`) of all parts when they were named
        self._earlier: dict | None = None  # the checkpoint of an earlier run, until this run has reached its position
        self._earlier_seconds, self._began = 0.0, time.monotonic()
        self._next_save = time.monotonic() + (self.every or 0)
        self._cannot_save, self._warned = False, set()
        self._ranks, self._stop = distributed.team_size(), distributed.StopSign()

    @contextlib.contextmanager
    def stage(self, name: str, key: str, file: Path, code: str = "") -> Iterator[None]:
        """Inside the block, resume from the checkpoint in `file`, if there is one, and save to it. The caller removes
        the file when the stage is done.

        Args:
            name, key: name and key of the stage, for messages and to recognise its checkpoint.
            file: path of the checkpoint.
            code: digest of the program (`dfkd.config.own_code.code_digest`); a checkpoint of other code is not used.

        Raises:
            CheckpointMismatch: the checkpoint does not fit the stage. The file is removed, and the stage must begin
                again. Raised on all ranks that make the stage, or on none.
        """
        self._clear()
        self.file, self._name = file, f"{name:<8} {key}"
        versions = {
            "torch": torch.__version__,
            "device": self.device.type,
            "code": code,
            "number of ranks": self._ranks,
        }
        self._about = {"stage": name, "key": key} | versions
        self._earlier = self._read()
        if self._earlier is not None:
            self.rows, self._earlier_seconds = self._earlier["rows"], self._earlier["seconds"]
        try:
            self._check_ranks()
            yield
            if self._earlier is not None:
                raise CheckpointMismatch(f"the stage never came to {self._earlier['position']}")
        except CheckpointMismatch:
            if distributed.is_first():
                file.unlink(missing_ok=True)
            raise
        finally:
            self._clear()
            interrupt.defer(False)

    def _check_ranks(self) -> None:
        """Raise CheckpointMismatch unless all ranks resume from the same position. No rank saves before all ranks have
        read."""
        own = self._earlier and self._earlier["position"]
        positions = distributed.gather(own)
        if self._ranks > 1 and distributed.on_first_rank(lambda: any(position != own for position in positions)):
            raise CheckpointMismatch("not every rank can read it")

    @property
    def seconds(self) -> float:
        """Seconds spent on the stage, with those of the earlier runs that it resumes."""
        return self._earlier_seconds + time.monotonic() - self._began

    def register(self, **parts: Any) -> None:
        """Name the objects that the stage depends on from here to its end; they are part of its checkpoints.

        Args:
            parts: objects, or containers of them, by name. An object that others refer to, such as the teacher or the
                student, must come first.
        """
        if self.file is not None:
            self._registered |= parts
            self._outline(parts)

    def loop(self, name: str, total: int, step: int = 1, **parts: Any) -> "range | ResumableLoop":
        """Return the numbers 0, step, 2 step, ... below `total` that are still to be done; to be iterated over once.

        Between two numbers the run may be stopped and resumed later. So everything that the body changes and that the
        following steps depend on must be a part, unless the body computes it again. If the run was stopped in a loop
        inside the body, the body is entered again from its beginning, with the parts as they were in the inner loop.

        Args:
            name: what is counted, in the singular, for messages: 'epoch', 'step'.
            total: end of the numbers, exclusive.
            step: distance between two numbers.
            parts: objects that the stage depends on during the loop in addition to those of `register`, for instance an
                optimizer that is created for it.

        Returns:
            an iterable; its attribute `start` is the first number.
        """
        outside = self.file is None or self._ranks != distributed.team_size()
        return range(0, total, step) if outside else ResumableLoop(self, name, total, step, parts)

    def _parts(self) -> dict[str, Any]:
        merged = dict(self._registered)
        for loop in self._loops:
            merged |= loop.parts
        return merged

    def _extract(self) -> tuple[Extractor, dict[str, Any]]:
        extractor = Extractor()
        return extractor, {name: extractor(part, name) for name, part in self._parts().items()}

    def _outline(self, new: dict[str, Any]) -> None:
        """Store the outline of new parts when they are named: the next run will create them in this form."""
        if not new or self.every is None or self._cannot_save:
            return
        try:
            outline = self._extract()[0].outline
        except Exception as reason:  # `CannotSave`, or any error of a user's object when its attributes are read
            return self._give_up(reason)
        old = {path: entry for path, entry in self._first_outline.items() if part_of(path) not in new}
        self._first_outline = old | {path: entry for path, entry in outline.items() if part_of(path) in new}

    def enter(self, loop: "ResumableLoop") -> int:
        """Register a loop that begins; returns the number with which it begins.

        Raises:
            ValueError: a part of the loop has the name of another part.
        """
        taken = sorted(loop.parts.keys() & self._parts().keys())
        if taken:  # one of the two would silently be missing in the checkpoint
            raise ValueError(f"loop '{loop.name}': other parts of the stage have the names {', '.join(taken)} already")
        loop.id = f"{loop.name} #{self._entered[-1][loop.name]}"
        self._entered[-1][loop.name] += 1
        self._loops.append(loop)
        self._entered.append(Counter())
        self._outline(loop.parts)
        interrupt.defer(self.every is not None)
        return 0 if self._earlier is None else self._resume(loop)

    def _resume(self, loop: "ResumableLoop") -> int:
        position, depth = self._earlier["position"], len(self._loops) - 1
        name, number = position[depth]
        is_this_loop = name == loop.id
        arrived = is_this_loop and depth == len(position) - 1
        # If not arrived, the same data are restored again at the next loop, and the stage must not change them before.
        checkpoint = self._earlier if arrived else copy.deepcopy(self._earlier)
        self._restore(checkpoint, self._parts() if is_this_loop else self._registered)
        if not is_this_loop:
            return loop.total  # the earlier run has finished this loop
        if depth == 0:
            log.info("  %s resumed at %s %d of %d", self._name, loop.name, number, loop.total)
        if arrived:
            self._earlier = None
        return number

    def _restore(self, checkpoint: dict, parts: dict[str, Any]) -> None:
        restorer = Restorer()
        try:
            for name, part in parts.items():
                restorer(part, checkpoint["parts"][name], name)
            restore_random_state(checkpoint["random"], self.device)
        except Exception as error:  # the state of another program may lead to any error
            raise CheckpointMismatch(f"{type(error).__name__}: {error}") from error

    def passed(self, loop: "ResumableLoop", number: int) -> None:
        """Called by a loop after each step: save if a checkpoint is due, and stop if a signal has asked for it.

        Args:
            number: all numbers below it are done.

        Raises:
            Interrupted: a signal has asked to stop.
            CheckpointMismatch: the stage has passed the position of the checkpoint without reaching it.
        """
        if self._earlier is not None:
            raise CheckpointMismatch(f"the stage went past {self._earlier['position']}")
        loop.number = number
        self.between()
        self._entered[-1].clear()
        last = number >= loop.total and len(self._loops) == 1
        stop = interrupt.asked if self._ranks == 1 else self._stop(look=last)
        if stop or time.monotonic() >= self._next_save:
            self._save()
        if stop or (interrupt.asked and self._ranks == 1):
            raise interrupt.Interrupted

    def left(self, loop: "ResumableLoop") -> None:
        """Called when a loop ends, also by an error or a `break`."""
        if loop in self._loops:
            del self._entered[self._loops.index(loop) + 1 :]
            del self._loops[self._loops.index(loop) :]
        if not self._loops:
            interrupt.defer(False)

    def stop_if_asked(self) -> None:
        """Called after the last step of a loop: stop if a signal has asked for it. Several ranks must stop at the same
        step, so inside an outer loop they leave this to `passed` of that loop."""
        if self._ranks == 1 or not self._loops:
            interrupt.stop_if_asked()

    def _save(self) -> None:
        if self.every is None or self._cannot_save or not distributed.is_first():
            return
        began = time.monotonic()
        try:
            extractor, parts = self._extract()
            extractor.check(self._first_outline)
            position = [[loop.id, loop.number] for loop in self._loops]
            state = {"position": position, "seconds": self.seconds, "rows": self.rows, "parts": parts}
            write(self.file, self._about, state | {"random": random_state(self.device)})
        except CannotSave as reason:
            self._give_up(reason)
        except Exception as error:  # for instance a full disk: no reason to stop the run
            self._warn(f"no checkpoint was saved ({error}): if the run is killed, it goes on from an earlier point")
        ended = time.monotonic()
        enough = (ended - began) / SHARE
        if enough > self.every > 0:
            took = f"its state takes {ended - began:.0f} s to save, every {self.every:g} s"
            self._warn(f"{took}: to lose less time by that, set runtime.checkpoint_every={enough:.0f}")
        self._next_save = ended + self.every

    def _give_up(self, reason: Exception) -> None:
        self._cannot_save = True
        self._warn(f"cannot be saved on its way, only when it is done: {reason}")

    def _warn(self, text: str) -> None:
        """Log a warning once per stage; warnings that differ only in their numbers count as the same."""
        kind = re.sub(r"\d+", "", text)
        if kind not in self._warned:
            log.warning("  WARNING  %s: %s", self._name, text)
            self._warned.add(kind)

    def _read(self) -> dict | None:
        """Return the checkpoint that an earlier run has left of this stage; None if there is none, or it is damaged or
        of another stage, key, torch version, device type, program or number of ranks."""
        if not self.file.exists():
            return None
        try:
            about, state = read(self.file, self.device)
        except Exception as error:  # a damaged file fails in too many ways to name
            log.warning("damaged checkpoint %s (%s): the stage begins anew", self.file, error)
            return None
        other = [name for name, value in self._about.items() if about.get(name) != value]
        if other:
            log.info("  %s begins anew: its checkpoint is of another %s", self._name, ", ".join(other))
            return None
        return state


def part_of(path: str) -> str:
    """Return the name of the part to which a path of an outline belongs."""
    return re.split(r"[.\[]", path, maxsplit=1)[0]
