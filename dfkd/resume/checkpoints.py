"""Stages that survive being killed: their state is saved every so often, and the next run goes on from there.

A stage names what it depends on (`keep`) and takes its steps in loops (`loop`), which may stand inside each other.
Between two steps all of that is at rest: there the state is saved, if it is time, and there a signal is obeyed. The
next run of the same stage makes everything anew, comes to the same loops, skips those that were finished, and enters
the one it was in with the state put back, at the step it had come to: what follows is the same to the last bit.

Where several ranks make a stage together (`dfkd.machine.distributed`), their state is the same: the first one saves it,
all go on from it, and they stop at the same step. Loops in which each of them works for itself are plain ranges.

What belongs to the state is found by `dfkd.resume.state`; the file is `dfkd.resume.statefile`'s.
"""

import contextlib
import copy
import logging
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dfkd.machine import distributed, interrupt
from dfkd.resume.state import CannotSave, Misfit, Put, Take
from dfkd.resume.statefile import read, write

log = logging.getLogger("dfkd")
SHARE = 0.1  # of the time: more for saving is worth a warning


class Checkpoints:
    """Where a run saves the stage it is in, and takes it up again. Outside a stage its loops are plain ranges.

    Args:
        every: seconds from one saving to the next; 0: after every step; None: never.
        device: of the run.

    Attributes:
        rows: of the stage's metrics so far; saved with the rest, and there again from the stage's beginning.
        between: called between the steps of a stage's loops; set anew for every stage.
    """

    def __init__(self, every: float | None = None, device: torch.device | str = "cpu"):
        self.every, self.device = every, torch.device(device)
        self._clear()

    def _clear(self) -> None:
        self.file: Path | None = None
        self.rows: list[dict] = []
        self.between: Callable[[], None] = lambda: None
        self._kept: dict[str, Any] = {}
        self._loops: list[ResumableLoop] = []
        self._entered = [Counter()]  # for every depth: how often a loop of a name was entered there
        self._fresh: dict[str, Any] = {}  # outline of all parts as they were made
        self._found: dict | None = None  # what an earlier run has left, until we are where it was
        self._before, self._began = 0.0, time.monotonic()
        self._due = time.monotonic() + (self.every or 0)
        self._broken, self._said = False, set()
        self._ranks, self._stop = distributed.team(), distributed.StopSign()

    @contextlib.contextmanager
    def stage(self, name: str, key: str, file: Path, code: str = "") -> Iterator[None]:
        """Inside the block, save to `file` and go on from what is there. The caller removes it when the stage is done.

        Args:
            name, key: of the stage, for messages, and to tell its file from others'.
            code: digest of the program (`dfkd.config.own_code.code_digest`): what another one has saved is not used.

        Raises:
            Misfit: what was found does not fit; the file is gone, and the stage has to be begun anew. On all ranks
                that make the stage, or on none.
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
        self._found = self._read()
        if self._found is not None:
            self.rows, self._before = self._found["rows"], self._found["seconds"]
        try:
            self._check_ranks()
            yield
            if self._found is not None:
                raise Misfit(f"the stage never came to {self._found['position']}")
        except Misfit:
            if distributed.is_first():
                file.unlink(missing_ok=True)
            raise
        finally:
            self._clear()
            interrupt.deferred = False

    def _check_ranks(self) -> None:
        """Raise Misfit unless all ranks go on from the same point; none saves before all have read."""
        mine = self._found and self._found["position"]
        found = distributed.gather(mine)
        if self._ranks > 1 and distributed.by_first(lambda: any(position != mine for position in found)):
            raise Misfit("not every rank can read it")

    @property
    def seconds(self) -> float:
        """Time spent on the stage, with that of runs which it goes on from."""
        return self._before + time.monotonic() - self._began

    def keep(self, **parts: Any) -> None:
        """Name what the stage depends on from here to its end: objects and containers of them.

        Put what others refer to first: the teacher, the student.
        """
        if self.file is not None:
            self._kept |= parts
            self._outline(parts)

    def loop(self, name: str, total: int, step: int = 1, **parts: Any) -> "range | ResumableLoop":
        """The numbers 0, step, 2 step, ... below `total` that are still to be done, once; `.start` is the first.

        Between them the run may be stopped, and go on later. Nothing may happen in the body that matters, is no part,
        and is not done again when the body is entered anew with the parts as they were (at a loop inside it).

        Args:
            name: what is counted, in the singular, for messages.
            parts: what the stage depends on while the loop lasts, beside what is kept: an optimizer made for it, say.
        """
        plain = self.file is None or self._ranks != distributed.team()
        return range(0, total, step) if plain else ResumableLoop(self, name, total, step, parts)

    def _parts(self) -> dict[str, Any]:
        merged = dict(self._kept)
        for loop in self._loops:
            merged |= loop.parts
        return merged

    def _take(self) -> tuple[Take, dict[str, Any]]:
        take = Take()
        return take, {name: take(part, name) for name, part in self._parts().items()}

    def _outline(self, new: dict[str, Any]) -> None:
        """Remember how parts are made of objects, while they are as the next run will make them."""
        if not new or self.every is None or self._broken:
            return
        try:
            outline = self._take()[0].outline
        except Exception as reason:  # `CannotSave`, or whatever an object of a user's own does when it is looked at
            return self._give_up(reason)
        old = {path: found for path, found in self._fresh.items() if part_of(path) not in new}
        self._fresh = old | {path: found for path, found in outline.items() if part_of(path) in new}

    def enter(self, loop: "ResumableLoop") -> int:
        """A loop begins: returns the number to begin with."""
        loop.id = f"{loop.name} #{self._entered[-1][loop.name]}"
        self._entered[-1][loop.name] += 1
        self._loops.append(loop)
        self._entered.append(Counter())
        self._outline(loop.parts)
        interrupt.deferred = self.every is not None
        return 0 if self._found is None else self._resume(loop)

    def _resume(self, loop: "ResumableLoop") -> int:
        position, depth = self._found["position"], len(self._loops) - 1
        name, number = position[depth]
        here = name == loop.id
        arrived = here and depth == len(position) - 1
        # else put back again at the next loop: what happens until then must not change it
        self._put_back(self._found if arrived else copy.deepcopy(self._found), self._parts() if here else self._kept)
        if not here:
            return loop.total  # it was finished before
        if depth == 0:
            log.info("  %s resumed at %s %d of %d", self._name, loop.name, number, loop.total)
        if arrived:
            self._found = None
        return number

    def _put_back(self, found: dict, parts: dict[str, Any]) -> None:
        put = Put()
        try:
            for name, part in parts.items():
                put(part, found["parts"][name], name)
            put_random_state(found["random"], self.device)
        except Exception as error:  # whatever the state of another program leads to
            raise Misfit(f"{type(error).__name__}: {error}") from error

    def passed(self, loop: "ResumableLoop", number: int) -> None:
        """A loop has done everything below `number`."""
        if self._found is not None:
            raise Misfit(f"the stage went past {self._found['position']}")
        loop.number = number
        self.between()
        self._entered[-1].clear()
        last = number >= loop.total and len(self._loops) == 1
        stop = interrupt.asked if self._ranks == 1 else self._stop(look=last)
        if stop or time.monotonic() >= self._due:
            self._save()
        if stop or (interrupt.asked and self._ranks == 1):
            raise interrupt.Interrupted

    def left(self, loop: "ResumableLoop") -> None:
        """A loop has ended, or was broken off."""
        if loop in self._loops:
            del self._entered[self._loops.index(loop) + 1 :]
            del self._loops[self._loops.index(loop) :]
        interrupt.deferred = interrupt.deferred and bool(self._loops)

    def stop_if_asked(self) -> None:
        """After the last step of a loop: nobody else is to look any more, except at a step that all ranks take."""
        if self._ranks == 1 or not self._loops:
            interrupt.stop_if_asked()

    def _save(self) -> None:
        if self.every is None or self._broken or not distributed.is_first():
            return
        began = time.monotonic()
        try:
            take, parts = self._take()
            take.check(self._fresh)
            position = [[loop.id, loop.number] for loop in self._loops]
            state = {"position": position, "seconds": self.seconds, "rows": self.rows, "parts": parts}
            write(self.file, self._about, state | {"random": random_state(self.device)})
        except CannotSave as reason:
            self._give_up(reason)
        except Exception as error:  # a full disk, say: no reason to stop
            self._warn(f"no checkpoint was saved ({error}): if the run is killed, it goes on from an earlier point")
        ended = time.monotonic()
        enough = (ended - began) / SHARE
        if enough > self.every > 0:
            took = f"its state takes {ended - began:.0f} s to save, every {self.every:g} s"
            self._warn(f"{took}: to lose less time by that, set runtime.checkpoint_every={enough:.0f}")
        self._due = ended + self.every

    def _give_up(self, reason: Exception) -> None:
        self._broken = True
        self._warn(f"cannot be saved on its way, only when it is done: {reason}")

    def _warn(self, text: str) -> None:
        """Say it once a stage, whatever its numbers."""
        kind = re.sub(r"\d+", "", text)
        if kind not in self._said:
            log.warning("  WARNING  %s: %s", self._name, text)
            self._said.add(kind)

    def _read(self) -> dict | None:
        """What an earlier run has left of this stage, if it is whole and can be used."""
        if not self.file.exists():
            return None
        try:
            about, found = read(self.file, self.device)
        except Exception as error:  # a damaged file fails in too many ways to name
            log.warning("damaged checkpoint %s (%s): the stage begins anew", self.file, error)
            return None
        other = [name for name, value in self._about.items() if about.get(name) != value]
        if other:
            log.info("  %s begins anew: its checkpoint is of another %s", self._name, ", ".join(other))
            return None
        return found


def part_of(path: str) -> str:
    """The name of the part that a path of an outline leads into."""
    return re.split(r"[.\[]", path, maxsplit=1)[0]


class ResumableLoop:
    """See `Checkpoints.loop`.

    Attributes:
        start: the number it begins with.
        number: everything below is done.
        id: its name, and how many loops of that name there were before it beside it.
    """

    def __init__(self, checkpoints: Checkpoints, name: str, total: int, step: int, parts: dict[str, Any]):
        self.checkpoints, self.name, self.total, self.step, self.parts = checkpoints, name, total, step, parts
        self.id = name
        self.start = self.number = checkpoints.enter(self)

    def __iter__(self) -> Iterator[int]:
        try:
            for number in range(self.start, self.total, self.step):
                yield number
                self.checkpoints.passed(self, min(number + self.step, self.total))
        finally:
            self.checkpoints.left(self)
        self.checkpoints.stop_if_asked()


def random_state(device: torch.device) -> dict[str, Any]:
    """Of all random generators that a whole process shares."""
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "numpy": np.random.get_state(legacy=False),
        "python": random.getstate(),
    }


def put_random_state(state: dict[str, Any], device: torch.device) -> None:
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"], device)
    np.random.set_state(state["numpy"])
    random.setstate(state["python"])
