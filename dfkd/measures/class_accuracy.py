"""Accuracy on some classes only, such as those of one task of a chain."""

from dfkd.measures.base import Measure
from dfkd.metrics import Exam, percent


class ClassAccuracy(Measure):
    """Accuracy on the ID images of some classes, in percent; None if there is no such image.

    Args:
        classes: labels of the images; the model may answer any of its classes.

    Raises:
        ValueError: there is no class.
    """

    def __init__(self, classes: list[int]):
        if not classes:
            raise ValueError("classes must name one class at least")
        self.classes = classes

    def __call__(self, exam: Exam) -> float | None:
        chosen = sum(exam.id.labels == label for label in self.classes).bool()
        return percent((exam.id.answer == exam.id.labels)[chosen])
