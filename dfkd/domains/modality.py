"""Modalities: the kinds of examples (images, points, embeddings), and the properties that depend on the kind."""

import math
from dataclasses import dataclass

FIGURES = ("grid", "field", "projection")


@dataclass(frozen=True)
class Modality:
    """One kind of example. Examples of every kind are tensors (C, H, W).

    Attributes:
        name: plural noun for messages.
        box: range of valid values, or None if every number is valid.
        neighbours: whether values adjacent along H and W are related, as pixels are. Only then does it make sense to
            shift, mirror, smooth or convolve an example.
        figure: how a student and its synthetic examples are plotted: 'grid' (images side by side), 'field' (the
            decision field in the plane; only for examples of two numbers), or 'projection' (onto a plane fitted to the
            real examples).

    Raises:
        ValueError: figure is unknown.
    """

    name: str
    box: tuple[float, float] | None
    neighbours: bool
    figure: str

    def __post_init__(self):
        if self.figure not in FIGURES:
            raise ValueError(f"figure must be one of {', '.join(FIGURES)}, got '{self.figure}'")

    def check(self, domain: str, shape: tuple[int, int, int]) -> None:
        """Raise ValueError if the figure cannot plot examples of `shape`; `domain` is a name for the message."""
        numbers = math.prod(shape)
        if (self.figure == "field" and numbers != 2) or (self.figure == "projection" and numbers < 2):
            wanted = "two numbers" if self.figure == "field" else "two numbers or more"
            raise ValueError(f"domain '{domain}' has {self.name} of shape {shape}, which must be {wanted} each")

    @property
    def has_pixels(self) -> bool:
        """Whether an example is an image with pixels in [0, 1], on which a trigger or a texture can be drawn."""
        return self.neighbours and self.box == (0.0, 1.0)


IMAGES = Modality("images", box=(0.0, 1.0), neighbours=True, figure="grid")
POINTS = Modality("points", box=None, neighbours=False, figure="field")  # (1, 2, 1)
# Feature vectors of an encoder, (D, 1, 1). Every feature is a channel, so that mean and std are per feature.
EMBEDDINGS = Modality("embeddings", box=None, neighbours=False, figure="projection")
