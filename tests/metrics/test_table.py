"""The table of metrics: what it holds, and how a row measures."""

import subprocess
import sys

import pytest
from runner import process_environment

from dfkd.metrics import COMPUTED, FORMS, TABLE, Metric, columns


def test_the_columns_of_a_report_and_their_order():
    assert columns() == {
        "teacher ID": "teacher.iacc",
        "student ID": "student.iacc",
        "agreement": "student.agreement",
        "grid agreement": "student.grid_agreement",
        "OOD acc": "student.oacc",
        "teacher OLAcc": "teacher.olacc",
        "OLAcc": "student.olacc",
        "teacher ASR": "teacher.asr",
        "ASR": "student.asr",
        "audit": "audit.probability",
        "nearer to train": "leakage.pixels.nearer_train",
        "nearer to train, features": "leakage.features.nearer_train",
        "pool AUROC": "leakage.pixels.membership_auroc",
        "pool AUROC, features": "leakage.features.membership_auroc",
        "fragile": "fragile_share",
        "teacher evals": "teacher_evals",
        "seconds": "seconds.total",
    }


def test_every_row_says_all_that_its_readers_need():
    assert len({metric.key for metric in TABLE}) == len(TABLE)
    for metric in TABLE:
        assert metric.label and metric.form in FORMS and metric.columns
        assert metric in COMPUTED or not metric.headline
    lower = {metric.key for metric in TABLE if metric.lower_is_better}
    assert lower == {"olacc", "asr", "audit", "leakage", "pool_membership", "teacher_evals", "seconds"}


@pytest.mark.parametrize(
    ("value", "found"), [(3, 3.0), (True, 1.0), (0.5, 0.5), (None, None), (float("nan"), None), (float("inf"), None)]
)
def test_a_value_is_a_finite_number_or_none(value, found):
    assert Metric("mine", "mine", compute=lambda exam: value).of(None) == found


def test_a_value_that_is_no_number_is_named():
    with pytest.raises(ValueError, match=r"metrics\.mine must compute a number or None, got \[1\]"):
        Metric("mine", "mine", compute=lambda exam: [1]).of(None)


@pytest.mark.parametrize(
    ("form", "text"),
    [("percent", "1234.6"), ("share", "1234.57"), ("count", "1,235"), ("seconds", "1235"), ("number", "1235")],
)
def test_a_value_is_written_in_its_form(form, text):
    assert Metric("mine", "mine", form).format_value(1234.567) == text


def test_what_is_said_of_a_metric():
    assert Metric("mine", "margin", "number").about == "margin"
    assert Metric("mine", "margin", lower_is_better=True).about == "margin (%), lower is better"


def test_the_table_is_read_without_torch():
    code = "import sys, dfkd.metrics; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], env=process_environment(), check=True)
