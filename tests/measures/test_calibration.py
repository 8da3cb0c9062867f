import math

import pytest
import torch

from dfkd.measures import BrierScore, CalibrationError, NegativeLogLikelihood
from dfkd.measures.calibration import brier_score, expected_calibration_error


def slow_ece(probabilities: torch.Tensor, labels: torch.Tensor, bins: int) -> float:
    """The definition of Guo et al., image by image."""
    members = [[] for _ in range(bins)]
    for row, label in zip(probabilities.tolist(), labels.tolist(), strict=True):
        confidence = max(row)
        (bin_number,) = (m for m in range(bins) if m / bins < confidence <= (m + 1) / bins)
        members[bin_number].append((confidence, row.index(confidence) == label))
    total = 0.0
    for inside in filter(None, members):
        confidence, accuracy = (sum(values) / len(inside) for values in zip(*inside, strict=True))
        total += len(inside) / len(labels) * abs(accuracy - confidence)
    return total


@pytest.mark.parametrize("bins", [1, 4, 15])
def test_the_calibration_error_is_that_of_its_definition(random, bins):
    probabilities = torch.randn(200, 5, generator=random).mul(2).softmax(1)
    labels = torch.randint(5, (200,), generator=random)
    expected = slow_ece(probabilities, labels, bins)
    assert expected_calibration_error(probabilities, labels, bins) == pytest.approx(expected, abs=1e-6)


def test_certainty_that_is_always_right_is_calibrated_and_always_wrong_is_not(answered):
    logits = torch.eye(3) * 1000
    right, wrong = answered(logits, torch.tensor([0, 1, 2])), answered(logits, torch.tensor([1, 2, 0]))
    assert CalibrationError()(right) == 0 and CalibrationError()(wrong) == 100
    assert BrierScore()(right) == 0 and BrierScore()(wrong) == 2


def test_brier_score_and_likelihood_are_those_of_their_definitions(random, answered):
    logits, labels = torch.randn(50, 4, generator=random), torch.randint(4, (50,), generator=random)
    brier = likelihood = 0.0
    for row, label in zip(logits.softmax(1).tolist(), labels.tolist(), strict=True):
        brier += sum((p - (k == label)) ** 2 for k, p in enumerate(row)) / 50
        likelihood -= math.log(row[label]) / 50
    assert brier_score(logits.softmax(1), labels) == pytest.approx(brier, rel=1e-5)
    assert NegativeLogLikelihood()(answered(logits, labels)) == pytest.approx(likelihood, rel=1e-5)


def test_a_bin_at_least():
    with pytest.raises(ValueError, match="bins must be at least 1, got 0"):
        CalibrationError(bins=0)
