"""The measures in a run: the same for teacher and student, and no reason to train anything anew."""

import pytest
from runner import NOISE, make_cell, run

from dfkd.errors import ConfigError
from dfkd.main import CONF
from dfkd.stages.prepare import prepare
from dfkd.stages.stage import planned_stages

BUILT_IN = sorted({file.stem for file in (CONF / "metrics").glob("*.yaml")} - {"none", "shift_usps", "shift_mnistm"})
ALL = f"metrics=[{','.join(BUILT_IN)}]"


def test_all_of_them_are_measured_of_teacher_and_student(tmp_path):
    result = run(tmp_path, *NOISE, ALL, "data.limit=20")
    keys = set(result["config"]["metrics"])
    assert {"ece", "pgd_8", "corrupted_5", "gaussian_blur", "shift_tinted", "membership_auroc"} <= keys
    for model in ("teacher", "student", "student_best_on_validation"):
        assert all(isinstance(result[model][key], float) for key in keys)
    assert not keys & set(result["validation"])


def test_only_the_judgement_of_the_teacher_is_made_anew(tmp_path):
    plain, measured = (make_cell(tmp_path, *NOISE, *more) for more in ((), (ALL,)))
    before, after = ({n: s.key for n, s in planned_stages(c, prepare(c)).items()} for c in (plain, measured))
    assert {name for name in before if before[name] != after[name]} == {"judgement"}


def test_what_makes_no_sense_is_told_before_any_work(tmp_path):
    with pytest.raises(ConfigError, match=r"'textures' has 4 classes, 'textured_digits' has 10"):
        prepare(make_cell(tmp_path, *NOISE, "domain@ntl_scenario.id=textures", "metrics=shift_textured"))
    with pytest.raises(ConfigError, match=r"metrics.shift_mnistm.compute.domain: there is no .*mnistm.npz"):
        prepare(make_cell(tmp_path, *NOISE, "metrics=shift_mnistm", f"data.root={tmp_path}"))
