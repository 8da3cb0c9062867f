"""Metrics that a configuration adds: rows without their code, and what of them belongs into a key."""

import pytest

from dfkd.metrics import own_content, own_metric, own_metrics

COMPUTE = {"_target_": "os.system", "command": "touch /tmp/never"}


def test_a_row_of_ones_own_has_a_column_for_student_and_teacher():
    metric = own_metric("ece", "calibration error", form="percent", lower_is_better=True)
    assert metric.columns == (
        ("teacher calibration error", "teacher.ece"),
        ("calibration error", "student.ece"),
    )
    assert own_metric("ece", "calibration error", of_teacher=False).columns == (("calibration error", "student.ece"),)


def test_a_report_reads_rows_from_configurations_and_runs_nothing():
    sections = [{"a": {"label": "A", "compute": COMPUTE}}, {"a": {"label": "other"}, "b": {"label": "B"}}]
    found = own_metrics({"metrics": section} for section in sections)
    assert [(metric.key, metric.label, metric.compute) for metric in found] == [("a", "A", None), ("b", "B", None)]


@pytest.mark.parametrize(
    "section",
    [
        None,
        3,
        ["a"],
        {"a": 3},
        {"a": {}},
        {"a": {"label": 3}},
        {"a": {"label": {}}},
        {"a": {"label": "A", "form": []}},
        {"a": {"label": "A", "unknown": 1}},
        {"a.b": {"label": "A"}},
        {"iacc": {"label": "A"}},
        {"a": {"label": "student ID"}},
    ],
)
def test_a_section_that_cannot_be_read_is_left_out(section):
    assert own_metrics([{"metrics": section}, {}]) == ()


def test_what_computes_a_metric_counts_and_what_it_is_called_does_not():
    node = {"label": "A", "form": "share", "lower_is_better": True, "compute": COMPUTE}
    usual, rare = {"metrics": {"a": node}}, {"metrics": {"a": node | {"each_round": False}}}
    assert own_content(usual) == {"metrics": {"a": {"compute": COMPUTE, "of_teacher": True, "each_round": True}}}
    assert own_content(rare) == {"metrics": {"a": {"compute": COMPUTE, "of_teacher": True, "each_round": False}}}
    for when in ("of_teacher", "each_round"):
        assert own_content(usual, when) == {"metrics": {"a": {"compute": COMPUTE}}}
    assert own_content(rare, "each_round") == {} and own_content(rare, "of_teacher") == own_content(usual, "of_teacher")
    assert own_content({}) == own_content({"metrics": {}}) == own_content({"metrics": None}) == {}
