"""The table of layer names in other code bases (namings.yaml), which orders a state dict's layers as ours are."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml
from torch import Tensor

Layers = dict[str, dict[str, Tensor]]  # for each layer its tensors by last name component: weight, bias, ...


@dataclass(frozen=True)
class Naming:
    """A naming of layers; a row of namings.yaml, which explains the fields.

    Attributes:
        layers: patterns of layer names, in our order; each is a regular expression and its alternatives.
    """

    name: str
    layers: tuple[tuple[re.Pattern, tuple[str, ...]], ...]
    pools: str | None = None
    kernels: tuple[int, ...] | None = None
    note: str | None = None
    renamed: tuple[tuple[str, str], ...] = ()

    def layers_of(self, tensors: dict[str, Tensor]) -> Layers:
        """Group the tensors of a state dict by layer, after the replacements in their names (`renamed`)."""
        names = dict(zip(tensors, tensors, strict=True))
        for old, new in self.renamed:
            names = {key: name.replace(old, new) for key, name in names.items()}
        return layers_of({names[key]: value for key, value in tensors.items()})

    def place(self, layer: str) -> tuple | None:
        """Return the sort key of a layer's name; None if the name does not belong to this naming."""
        for number, (pattern, choices) in enumerate(self.layers):
            match = pattern.fullmatch(layer)
            if match:
                *numbers, choice = (*match.groups(), None) if not choices else match.groups()
                return number, tuple(map(int, numbers)), choices.index(choice) if choices else 0
        return None

    def ordered(self, layers: Layers) -> list[str] | None:
        """Return the names of layers in our order; None if a name does not belong to this naming. Tensors without a
        layer (such as a lone weight and bias) are of no naming."""
        places = {name: self.place(name) for name in layers}
        return None if None in places.values() or layers.keys() == {""} else sorted(places, key=places.get)


@cache
def namings() -> tuple[Naming, ...]:
    """Return all known namings."""
    table = yaml.safe_load((Path(__file__).parent / "namings.yaml").read_text())
    return tuple(
        Naming(
            name,
            tuple(_pattern(text) for text in row["layers"]),
            row.get("pools"),
            tuple(row["kernels"]) if "kernels" in row else None,
            row.get("note"),
            tuple(row.get("renamed", {}).items()),
        )
        for name, row in table.items()
    )


def _pattern(text: str) -> tuple[re.Pattern, tuple[str, ...]]:
    """Convert a pattern such as 'layer#.{a,b}' to a regular expression, which captures the numbers and the alternative,
    and the list of alternatives."""
    start, brace, rest = text.partition("{")
    choices = tuple(rest.removesuffix("}").split(",")) if brace else ()
    expression = re.escape(start).replace(r"\#", r"(\d+)")
    if choices:
        expression += f"({'|'.join(map(re.escape, choices))})"
    return re.compile(expression), choices


def layers_of(tensors: dict[str, Tensor]) -> Layers:
    """Group the tensors of a state dict by layer."""
    layers: Layers = {}
    for key, value in tensors.items():
        layer, _, name = key.rpartition(".")
        layers.setdefault(layer, {})[name] = value
    return layers
