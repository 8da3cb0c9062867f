"""The control of study 11: the attack on any student, for the images that another teacher has memorised."""

import pytest
from runner import NOISE, run
from studies import leakage, pages


def test_the_control_is_the_attack_of_the_metric_where_the_images_are_the_students_own(tmp_path):
    run(tmp_path, *NOISE, "metrics=membership", "domain@ntl_scenario.id=digits", "ntl_scenario.id.train_images=60")
    ((cell,), _) = pages.study_cells(tmp_path)
    assert leakage.on_few(cell, 60) == pytest.approx(cell.result["student"]["membership_auroc"], abs=2e-4)
    assert leakage.on_few(cell, 30) != leakage.on_few(cell, 60)
