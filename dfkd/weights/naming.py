"""The table of how others name their layers (namings.yaml), and a state dict's layers in the order of ours."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml
from torch import Tensor

Layers = dict[str, dict[str, Tensor]]  # the tensors of each layer by their last name: weight, bias, running_mean, ...


@dataclass(frozen=True)
class Naming:
    """See namings.yaml.

    Attributes:
        layers: patterns of layer names, in our order; each a regular expression and the names it chooses from.
    """

    name: str
    layers: tuple[tuple[re.Pattern, tuple[str, ...]], ...]
    pools: str | None = None
    kernels: tuple[int, ...] | None = None
    note: str | None = None

    def place(self, layer: str) -> tuple | None:
        """What a layer's name is sorted by; None if it is none of this naming."""
        for number, (pattern, choices) in enumerate(self.layers):
            found = pattern.fullmatch(layer)
            if found:
                *numbers, choice = (*found.groups(), None) if not choices else found.groups()
                return number, tuple(map(int, numbers)), choices.index(choice) if choices else 0
        return None

    def ordered(self, layers: Layers) -> list[str] | None:
        """The names of layers in our order; None if one is none of this naming."""
        places = {name: self.place(name) for name in layers}
        return None if None in places.values() else sorted(places, key=places.get)


@cache
def namings() -> tuple[Naming, ...]:
    """All known namings."""
    table = yaml.safe_load((Path(__file__).parent / "namings.yaml").read_text())
    return tuple(
        Naming(
            name,
            tuple(_pattern(text) for text in row["layers"]),
            row.get("pools"),
            tuple(row["kernels"]) if "kernels" in row else None,
            row.get("note"),
        )
        for name, row in table.items()
    )


def _pattern(text: str) -> tuple[re.Pattern, tuple[str, ...]]:
    """'layer#.{a,b}' as a regular expression that captures the numbers and the choice, and its choices."""
    start, brace, rest = text.partition("{")
    choices = tuple(rest.removesuffix("}").split(",")) if brace else ()
    expression = re.escape(start).replace(r"\#", r"(\d+)")
    if choices:
        expression += f"({'|'.join(map(re.escape, choices))})"
    return re.compile(expression), choices


def layers_of(tensors: dict[str, Tensor]) -> Layers:
    """A state dict by layers."""
    found: Layers = {}
    for key, value in tensors.items():
        layer, _, name = key.rpartition(".")
        found.setdefault(layer, {})[name] = value
    return found
