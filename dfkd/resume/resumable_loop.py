"""A loop between whose steps a stage can be saved and stopped."""

from collections.abc import Iterator
from typing import Any, Protocol


class Owner(Protocol):
    """What a loop tells of its way; `Checkpoints` is the one that saves and stops there."""

    def enter(self, loop: "ResumableLoop") -> int: ...
    def passed(self, loop: "ResumableLoop", number: int) -> None: ...
    def left(self, loop: "ResumableLoop") -> None: ...
    def stop_if_asked(self) -> None: ...


class ResumableLoop:
    """The numbers of a loop that are still to be done (`Checkpoints.loop`).

    Attributes:
        start: the number with which it begins.
        number: all numbers below it are done.
        id: its name, and how many loops of that name came before it at the same depth in the same step of the outer
            loop.
    """

    def __init__(self, owner: Owner, name: str, total: int, step: int, parts: dict[str, Any]):
        self.owner, self.name, self.total, self.step, self.parts = owner, name, total, step, parts
        self.id = name
        self.start = self.number = owner.enter(self)

    def __iter__(self) -> Iterator[int]:
        try:
            for number in range(self.start, self.total, self.step):
                yield number
                self.owner.passed(self, min(number + self.step, self.total))
        finally:
            self.owner.left(self)
        self.owner.stop_if_asked()
