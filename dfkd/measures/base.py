"""The base class of measures: what a metric of `dfkd.metrics` may compute of a model."""

from abc import ABC, abstractmethod

from dfkd.domains import Images
from dfkd.domains.base import subsample
from dfkd.metrics import Exam
from dfkd.scenarios import Scenario

CHOICE_SEED = 0  # the same images and the same noise for every model, teacher or student, of every seed


class Measure(ABC):
    """A number for a model, computed of an `Exam`; it is the `compute` of an entry of the section `metrics`."""

    def check(self, scenario: Scenario) -> None:  # noqa: B027 (a measure of any domain checks nothing)
        """Raise ValueError if the measure makes no sense for the domains of a scenario. Called before any work."""

    @abstractmethod
    def __call__(self, exam: Exam) -> float | None:
        """Return the value for a model, or None if it does not apply."""


def chosen_images(images: Images, limit: int | None) -> Images:
    """Return at most `limit` images, the same ones for every model; all of them if `limit` is None.

    They are chosen at random, because a test set may begin with its easier images, as MNIST's does.
    """
    return subsample(images, limit, CHOICE_SEED)


def check_count(name: str, count: int | None) -> None:
    """Raise ValueError if a number of images is given and below 1."""
    if count is not None and count < 1:
        raise ValueError(f"{name} must be at least 1 (or null for all images), got {count}")
