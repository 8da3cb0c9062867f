"""Accuracy on corrupted ID images."""

import torch

from dfkd.domains import Images
from dfkd.evaluate import accuracy
from dfkd.machine.runtime import stream_seed
from dfkd.measures.base import CHOICE_SEED, Measure, check_count, chosen_images
from dfkd.measures.corruptions import CORRUPTIONS, STRENGTHS, corrupt
from dfkd.metrics import Exam
from dfkd.scenarios import Scenario


class CorruptedAccuracy(Measure):
    """Accuracy on corrupted ID images, in percent: the mean over kinds and strengths (`dfkd.measures.corruptions`).

    Every model is shown the same corrupted images.

    Args:
        kinds: keys of CORRUPTIONS; None for all of them.
        strengths: some of 1 to 5; None for all of them.
        images: at most this many images, each of which is shown once for every kind and strength; None for all.

    Raises:
        ValueError: a kind or a strength is unknown, there is none, or images < 1.
    """

    def __init__(self, kinds: list[str] | None = None, strengths: list[int] | None = None, images: int | None = 1000):
        check_count("images", images)
        self.kinds = _chosen("kinds", kinds, tuple(CORRUPTIONS))
        self.strengths = _chosen("strengths", strengths, STRENGTHS)
        self.images = images

    def check(self, scenario: Scenario) -> None:
        domain = scenario.id
        if not domain.modality.has_pixels:
            raise ValueError(f"only images can be corrupted, and '{domain.name}' is a domain of {domain.modality.name}")

    def __call__(self, exam: Exam) -> float:
        images = chosen_images(exam.id.images, self.images)
        values = [
            accuracy(exam.model, corrupted_images(images, kind, strength), exam.runtime)
            for kind in self.kinds
            for strength in self.strengths
        ]
        return sum(values) / len(values)


def corrupted_images(images: Images, kind: str, strength: int) -> Images:
    """Return corrupted images, as float; the same ones at every call. `kind` and `strength` as for `corrupt`."""
    generator = torch.Generator().manual_seed(stream_seed(CHOICE_SEED, "corruption", kind, strength))
    return Images(corrupt(images.pixels(), kind, strength, generator), images.y)


def _chosen(name: str, values: list | None, known: tuple) -> tuple:
    """Return the chosen values, or all known ones for None; raise ValueError if there is none or one is unknown."""
    chosen = known if values is None else tuple(values)
    unknown = [value for value in chosen if value not in known]
    if unknown or not chosen:
        raise ValueError(f"{name} must be some of {', '.join(map(str, known))}, got {list(chosen)}")
    return chosen
