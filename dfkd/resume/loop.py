"""The loop of a method that takes long: a run can be stopped between two of its steps, and go on there.

    for number in self.loop("step", 2000, x=x, optimizer=optimizer):
        ...

1. A method asks its `loop` for the numbers of a long loop; outside of a run they are a plain range.
2. Between two numbers the run may be stopped. When it goes on, the method is made and started anew, and everything in
   its attributes and in the parts that the call names (`x`, `optimizer`) is put back as it was.
3. Nothing else may matter to the next step: a local variable that the body changes has to be such a part.
"""

from collections.abc import Iterable
from typing import Any, Protocol


class Loop(Protocol):
    """Hands out the numbers 0, step, 2 step, ... below `total` that are still to be done.

    Args:
        name: what is counted, in the singular, for messages: 'epoch', 'step'.
        total: how many there are.
        step: how many are done at once.
        parts: what the loop depends on beside the attributes of the method, by name.
    """

    def __call__(self, name: str, total: int, step: int = 1, **parts: Any) -> Iterable[int]: ...


def plain(name: str, total: int, step: int = 1, **parts: Any) -> range:
    """All of them: the loop of a method that no run stands around."""
    return range(0, total, step)
