"""What kind of thing the examples of a domain are, and all that depends on it."""

import math
from dataclasses import dataclass

FIGURES = ("grid", "field", "projection")


@dataclass(frozen=True)
class Modality:
    """One kind of example. Whatever its kind, an example is a tensor (C, H, W).

    Attributes:
        name: in the plural, for messages.
        box: range of valid values, or None where every number is one.
        neighbours: whether values that lie beside each other along H and W belong together, as pixels do. Only then it
            makes sense to shift, mirror, smooth or convolve an example.
        figure: what shows a student and its synthetic examples: 'grid' (pictures side by side), 'field' (the decision
            field in the plane; of examples of two numbers only), or 'projection' (a plane laid through the real ones).

    Raises:
        ValueError: there is no such figure.
    """

    name: str
    box: tuple[float, float] | None
    neighbours: bool
    figure: str

    def __post_init__(self):
        if self.figure not in FIGURES:
            raise ValueError(f"figure must be one of {', '.join(FIGURES)}, got '{self.figure}'")

    def check(self, domain: str, shape: tuple[int, int, int]) -> None:
        """Raise ValueError if the figure cannot show the examples of a domain, of `shape`."""
        numbers = math.prod(shape)
        if (self.figure == "field" and numbers != 2) or (self.figure == "projection" and numbers < 2):
            wanted = "two numbers" if self.figure == "field" else "two numbers or more"
            raise ValueError(f"domain '{domain}' has {self.name} of shape {shape}, which must be {wanted} each")

    @property
    def has_pixels(self) -> bool:
        """Whether an example is a picture, whose pixels lie in [0, 1]: one can paint on it."""
        return self.neighbours and self.box == (0.0, 1.0)


IMAGES = Modality("images", box=(0.0, 1.0), neighbours=True, figure="grid")
POINTS = Modality("points", box=None, neighbours=False, figure="field")  # (1, 2, 1)
# The input vectors of a classifier that stands on somebody else's encoder, (D, 1, 1): a channel for every feature, so
# that mean and std are those of the feature.
EMBEDDINGS = Modality("embeddings", box=None, neighbours=False, figure="projection")
