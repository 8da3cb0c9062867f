"""A trained network's exam, and one whose answers are given."""

import pytest
import torch
from torch import Tensor

from dfkd.domains import POINTS, Domain, Images
from dfkd.evaluate import predictions
from dfkd.metrics import Answers, Exam
from dfkd.scenarios import none


@pytest.fixture
def exam(trained, small_digits, runtime):
    """The exam of a network that has learned the digits, on their test images."""
    logits = predictions(trained, small_digits.test, runtime)
    answers = Answers(small_digits.test, logits, lambda: logits)
    return Exam(trained, trained, none(small_digits), runtime, "test", answers, None)


@pytest.fixture
def answered(small_digits, runtime):
    """Make an exam of given logits (N, classes) and labels (N,); it has no model."""

    def make(logits: Tensor, labels: Tensor) -> Exam:
        answers = Answers(Images(small_digits.test.x[: len(labels)], labels), logits, lambda: logits)
        return Exam(None, None, none(small_digits), runtime, "test", answers, None)

    return make


@pytest.fixture
def plane() -> Domain:
    """Points in the plane, of ten classes."""
    part = Images(torch.rand(10, 1, 2, 1), torch.arange(10))
    return Domain("plane", 10, part, part, part, modality=POINTS)
