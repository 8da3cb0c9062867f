"""What was made for earlier cells of a plan: the cells of a sweep differ in a few options and share all others."""

from collections import defaultdict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

KEPT = 16  # number of results that are kept for each place
SCALARS = (bool, int, float, str, type(None))


class Memo:
    """Results of calls, by the place of the call and by its arguments.

    It is for plans only: runs must not share objects that they change, such as networks.
    """

    def __init__(self):
        self._known: dict[str, dict[Hashable, Any]] = defaultdict(dict)

    def once(self, place: str, arguments: Any, make: Callable[[], Any]) -> Any:
        """Return what `make` returned at this place for the same arguments, or its result now.

        A call that raises is not remembered. Each place keeps its `KEPT` newest results.

        Args:
            arguments: all that the result depends on. Scalars, lists and dicts are compared by value, and other
                objects, such as networks, by identity.
        """
        known, key = self._known[place], _key(arguments)
        if key not in known:
            result = make()
            if len(known) == KEPT:
                del known[next(iter(known))]
            known[key] = result
        return known[key]


@dataclass(frozen=True, eq=False)
class _Same:
    """Stands for an object in a key, is equal only for the same object, and keeps it alive."""

    thing: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.thing is other.thing

    def __hash__(self) -> int:
        return id(self.thing)


def _key(value: Any) -> Hashable:
    if isinstance(value, SCALARS):
        return repr(value)  # 1, 1.0 and True are equal, and not the same
    if isinstance(value, dict):
        return "dict", *((key, _key(item)) for key, item in value.items())
    if isinstance(value, list | tuple):
        return type(value), *map(_key, value)
    return _Same(value)
