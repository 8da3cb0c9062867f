"""How the metrics of the table are computed from what a model says of a scenario's images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dfkd.metrics.exam import Exam

if TYPE_CHECKING:
    from torch import Tensor


def percent(hits: Tensor) -> float | None:
    """Share of true entries in percent, to two decimals; None of nothing."""
    return round(100 * hits.float().mean().item(), 2) if len(hits) else None


def id_accuracy(exam: Exam) -> float | None:
    """Accuracy on ID images."""
    return percent(exam.id.answer == exam.id.labels)


def agreement(exam: Exam) -> float | None:
    """How often the model and the teacher agree on ID images."""
    return percent(exam.id.answer == exam.id.teacher_answer)


def ood_accuracy(exam: Exam) -> float | None:
    """Accuracy on OOD images against their true labels (close_set, backdoor)."""
    if exam.ood is None or not exam.scenario.shared_labels:
        return None
    return percent(exam.ood.answer == exam.ood.labels)


def taught_ood_label(exam: Exam) -> float | None:
    """How often the model gives OOD images the label that the teacher was taught (open_set); in a close set, where no
    one label was taught, how often it repeats the teacher's answer where that answer is wrong."""
    if exam.ood is None or exam.scenario.backdoor:
        return None
    if exam.scenario.ood_label is not None:
        return percent(exam.ood.answer == exam.scenario.ood_label)
    taught = exam.ood.teacher_answer
    return percent((exam.ood.answer == taught)[taught != exam.ood.labels])


def attack_success(exam: Exam) -> float | None:
    """How often a triggered image whose label is not the target is called the target (backdoor)."""
    if exam.ood is None or not exam.scenario.backdoor:
        return None
    target = exam.scenario.ood_label
    return percent((exam.ood.answer == target)[exam.ood.labels != target])
