"""The computation of the table's metrics from a model's predictions on the images of a scenario."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dfkd.metrics.exam import Exam

if TYPE_CHECKING:
    from torch import Tensor


def percent(hits: Tensor) -> float | None:
    """Share of true entries of (N,), bool, in percent, rounded to two decimals; None if N = 0."""
    return round(100 * hits.float().mean().item(), 2) if len(hits) else None


def id_accuracy(exam: Exam) -> float | None:
    """Accuracy on ID images, in percent."""
    return percent(exam.id.answer == exam.id.labels)


def agreement(exam: Exam) -> float | None:
    """Share of ID images on which model and teacher predict the same class, in percent."""
    return percent(exam.id.answer == exam.id.teacher_answer)


def ood_accuracy(exam: Exam) -> float | None:
    """Accuracy on OOD images against their true labels, in percent; None unless labels are shared with ID (close_set,
    backdoor)."""
    if exam.ood is None or not exam.scenario.shared_labels:
        return None
    return percent(exam.ood.answer == exam.ood.labels)


def taught_ood_label(exam: Exam) -> float | None:
    """OLAcc, in percent; None for a backdoor.

    Open set: share of OOD images for which the model predicts the label taught to the teacher. Close set, in which no
    single label is taught: share of the teacher's errors on OOD images that the model repeats.
    """
    if exam.ood is None or exam.scenario.backdoor:
        return None
    if exam.scenario.ood_label is not None:
        return percent(exam.ood.answer == exam.scenario.ood_label)
    taught = exam.ood.teacher_answer
    return percent((exam.ood.answer == taught)[taught != exam.ood.labels])


def attack_success(exam: Exam) -> float | None:
    """ASR, in percent: share of triggered images with another true label for which the model predicts the target label;
    None unless the scenario is a backdoor."""
    if exam.ood is None or not exam.scenario.backdoor:
        return None
    target = exam.scenario.ood_label
    return percent((exam.ood.answer == target)[exam.ood.labels != target])
