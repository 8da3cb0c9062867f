"""Accuracy under a natural shift: on the test images of another domain with the same classes."""

from dfkd.domains import Domain, Images, fit_images
from dfkd.evaluate import accuracy
from dfkd.measures.base import Measure, check_count, chosen_images
from dfkd.metrics import Exam
from dfkd.scenarios import Scenario


class ShiftedAccuracy(Measure):
    """Accuracy on the images of another domain, in percent. They are resized to the size and channels of ID images.

    Args:
        domain: a domain whose class k means the same as class k of the ID domain.
        images: at most this many images, the same ones for every model; None for all.

    Raises:
        ValueError: images < 1.
    """

    def __init__(self, domain: Domain, images: int | None = None):
        check_count("images", images)
        self.domain, self.images = domain, images

    def check(self, scenario: Scenario) -> None:
        own, other = scenario.id, self.domain
        if not (own.modality.has_pixels and other.modality.has_pixels):
            kinds = f"{own.modality.name} and {other.modality.name}"
            raise ValueError(f"a shift is measured on images, and '{own.name}' and '{other.name}' are {kinds}")
        if own.classes != other.classes:
            raise ValueError(
                f"'{own.name}' has {own.classes} classes, '{other.name}' has {other.classes}: a shift needs the same "
                f"ones; choose another domain"
            )

    def __call__(self, exam: Exam) -> float:
        channels, height, _ = exam.scenario.id.shape
        images = chosen_images(getattr(self.domain, exam.split), self.images)
        return accuracy(exam.model, Images(fit_images(images.x, height, channels), images.y), exam.runtime)
