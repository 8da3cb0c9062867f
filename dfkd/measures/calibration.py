"""Calibration on ID images: does a confidence of 90 % mean that 90 % of the answers are right?"""

import torch.nn.functional as F
from torch import Tensor

from dfkd.measures.base import Measure
from dfkd.metrics import Exam


def expected_calibration_error(probabilities: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Return the expected calibration error in [0, 1] (Guo et al., ICML 2017, arXiv 1706.04599, eq. 3):

        ECE = sum_m |B_m| / N * |accuracy(B_m) - confidence(B_m)|

    B_m holds the images whose confidence (the largest probability) lies in ((m - 1) / bins, m / bins].

    Args:
        probabilities: (N, classes), each row sums to 1.
        labels: true labels (N,).
        bins: number of bins of equal width.
    """
    confidence, answer = probabilities.max(1)
    gap = (answer == labels).double() - confidence.double()
    index = (confidence.double() * bins).ceil().long().clamp(1, bins) - 1
    sums = gap.new_zeros(bins).index_add(0, index, gap)
    return (sums.abs().sum() / len(labels)).item()


def brier_score(probabilities: Tensor, labels: Tensor) -> float:
    """Return the Brier score in [0, 2] (Brier, Monthly Weather Review 1950): the mean over images of

        sum_k (p_k - [k = label])^2

    Args:
        probabilities: (N, classes), each row sums to 1.
        labels: true labels (N,).
    """
    wanted = F.one_hot(labels, probabilities.shape[1])
    return (probabilities - wanted).square().sum(1).mean().item()


class CalibrationError(Measure):
    """Expected calibration error on ID images, in percent; see `expected_calibration_error`.

    Args:
        bins: number of bins of equal width; the paper has 15.

    Raises:
        ValueError: bins < 1.
    """

    def __init__(self, bins: int = 15):
        if bins < 1:
            raise ValueError(f"bins must be at least 1, got {bins}")
        self.bins = bins

    def __call__(self, exam: Exam) -> float:
        return 100 * expected_calibration_error(exam.id.logits.softmax(1), exam.id.labels, self.bins)


class BrierScore(Measure):
    """Brier score on ID images, in [0, 2]; see `brier_score`."""

    def __call__(self, exam: Exam) -> float:
        return brier_score(exam.id.logits.softmax(1), exam.id.labels)


class NegativeLogLikelihood(Measure):
    """Mean negative log-likelihood of the true labels of ID images, in nats."""

    def __call__(self, exam: Exam) -> float:
        return F.cross_entropy(exam.id.logits, exam.id.labels).item()
