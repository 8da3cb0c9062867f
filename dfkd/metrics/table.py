"""The table: one entry a metric, in the order of a report's columns."""

from collections.abc import Iterable

from dfkd.metrics.computed import agreement, attack_success, id_accuracy, ood_accuracy, taught_ood_label
from dfkd.metrics.metric import Metric

TABLE = (
    Metric(
        "iacc",
        "ID accuracy",
        compute=id_accuracy,
        columns=(("teacher ID", "teacher.iacc"), ("student ID", "student.iacc")),
        head="ID acc",
    ),
    Metric(
        "agreement",
        "agreement with the teacher",
        compute=agreement,
        of_teacher=False,
        headline=False,
        columns=(("agreement", "student.agreement"),),
    ),
    Metric(  # by the student's stage, of 2-D points
        "grid_agreement",
        "agreement with the teacher on a grid",
        of_teacher=False,
        headline=False,
        columns=(("grid agreement", "student.grid_agreement"),),
    ),
    Metric(
        "oacc",
        "OOD accuracy",
        compute=ood_accuracy,
        columns=(("OOD acc", "student.oacc"),),
        head="OOD acc",
    ),
    Metric(
        "olacc",
        "taught OOD label",
        lower_is_better=True,
        compute=taught_ood_label,
        columns=(("teacher OLAcc", "teacher.olacc"), ("OLAcc", "student.olacc")),
        head="OLAcc",
    ),
    Metric(
        "asr",
        "attack success",
        lower_is_better=True,
        compute=attack_success,
        columns=(("teacher ASR", "teacher.asr"), ("ASR", "student.asr")),
        head="ASR",
    ),
    Metric(
        "fragile_share",
        "share of fragile images",
        form="share",
        of_teacher=False,
        headline=False,
        columns=(("fragile", "fragile_share"),),
    ),
    Metric(
        "teacher_evals",
        "images shown to the teacher",
        form="count",
        lower_is_better=True,
        of_teacher=False,
        headline=False,
        columns=(("teacher evals", "teacher_evals"),),
    ),
    Metric(
        "seconds",
        "seconds from nothing",
        form="seconds",
        lower_is_better=True,
        of_teacher=False,
        headline=False,
        columns=(("seconds", "seconds.total"),),
    ),
)
COMPUTED = tuple(metric for metric in TABLE if metric.compute is not None)


def columns(metrics: Iterable[Metric] = TABLE) -> dict[str, str]:
    """{head of a table's column: path in result.json}, of these metrics in order."""
    return {head: path for metric in metrics for head, path in metric.columns}
