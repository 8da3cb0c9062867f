"""The table of metrics, in the order of the columns of a report."""

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
    Metric(  # the student's stage computes it, for 2-D points
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
    Metric(  # the stage of the audit makes it, from the teacher alone
        "audit",
        "probability that the teacher is trapped",
        form="share",
        lower_is_better=True,
        of_teacher=False,
        headline=False,
        columns=(("audit", "audit.probability"),),
    ),
    Metric(  # the stage of the leakage makes it, from the synthetic images and the real ones
        "leakage",
        "share of the pool nearer to training than to test images",
        form="share",
        lower_is_better=True,
        of_teacher=False,
        headline=False,
        columns=(
            ("nearer to train", "leakage.pixels.nearer_train"),
            ("nearer to train, features", "leakage.features.nearer_train"),
        ),
    ),
    Metric(  # by the same stage
        "pool_membership",
        "AUROC of membership by the distance to the pool",
        form="share",
        lower_is_better=True,
        of_teacher=False,
        headline=False,
        columns=(
            ("pool AUROC", "leakage.pixels.membership_auroc"),
            ("pool AUROC, features", "leakage.features.membership_auroc"),
        ),
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
    """Return {head of a column: path in result.json} for the metrics, in their order."""
    return {head: path for metric in metrics for head, path in metric.columns}
