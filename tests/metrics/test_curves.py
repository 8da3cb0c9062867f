"""What the training curves of a run draw of the table of metrics."""

from pathlib import Path

import pytest

from dfkd.metrics import TABLE, own_metric
from dfkd.stages import run_figures

ROWS = [
    {"stage": "student", "step": step, "loss/kd": 1.0, "val/iacc": 30.0 * step, "val/agreement": 1.0, "val/ece": 0.5}
    for step in range(3)
]


@pytest.fixture
def drawn(monkeypatch):
    """Draws curves; {title of a drawing: {label: line}}."""

    def draw(*own) -> dict:
        kept = []
        monkeypatch.setattr(run_figures, "draw", lambda figure, path, dpi: kept.append(figure))
        run_figures.training_curves(ROWS, {"iacc": 99.0, "ece": 0.1}, (*TABLE, *own), Path("curves.png"))
        return {axes.get_title(): {line.get_label(): line for line in axes.lines} for axes in kept[0].axes}

    return draw


def test_the_usual_curves(drawn):
    found = drawn()
    validation, losses = found.values()
    assert "ID accuracy (%)" in validation and not any("agreement" in label for label in validation)
    assert validation["ID accuracy (%)"].get_ydata().tolist() == [0, 30, 60] and list(losses) == ["kd"]
    teacher = next(line for label, line in validation.items() if label != "ID accuracy (%)")
    assert set(teacher.get_ydata()) == {99.0}


def test_a_metric_that_is_no_percentage_has_a_drawing_of_its_own(drawn):
    found = drawn(own_metric("ece", "calibration error", lower_is_better=True))
    assert "calibration error, lower is better" in found["other metrics"] and len(found) == 3


def test_a_metric_that_was_not_measured_on_the_way_has_no_curve(drawn):
    assert len(drawn(own_metric("late", "only in the end", each_round=False))) == 2
