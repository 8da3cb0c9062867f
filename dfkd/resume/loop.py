"""The long loop of a method: a run can be stopped between two of its steps, and is resumed there.

    for number in self.loop("step", 2000, x=x, optimizer=optimizer):
        ...

1. A method gets the numbers of a long loop from its `loop`; outside of a run they are a plain range.
2. Between two numbers the run may be stopped. When it is resumed, the method object is created and started again, and
   everything in its attributes and in the parts that the call names (`x`, `optimizer`) is restored.
3. The next step may depend on nothing else: a local variable that the body changes must be one of these parts.
"""

from collections.abc import Iterable
from typing import Any, Protocol


class Loop(Protocol):
    """Returns the numbers 0, step, 2 step, ... below `total` that are still to be done.

    Args:
        name: what is counted, in the singular, for messages: 'epoch', 'step'.
        total: how many there are.
        step: how many of them one pass through the body does.
        parts: objects that the loop depends on in addition to the attributes of the method, by name.
    """

    def __call__(self, name: str, total: int, step: int = 1, **parts: Any) -> Iterable[int]: ...


def plain_loop(name: str, total: int, step: int = 1, **parts: Any) -> range:
    """Return all numbers 0, step, 2 step, ... below `total`: the loop of a method that is used outside of a run."""
    return range(0, total, step)
