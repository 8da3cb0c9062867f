"""CAKE's trial, which tells before the time is spent that step sizes cannot move an image."""

import re

import pytest
from on_device import agree
from runner import run

from dfkd.noise import Noise
from dfkd.priors import Prior
from dfkd.synthesizers import CAKE, pilot


def make(runtime, rounds=20, steps=24, batch_size=500, groups=10, class_weight=1e3, **noise) -> CAKE:
    noise = Noise(**({"schedule": "linear", "eps": 0.1, "decades": 1.0} | noise))
    cake = CAKE((1, 8, 8), 10, Prior({}), noise, rounds, steps, batch_size, groups, class_weight, contrast_weight=10)
    cake.start(runtime, 0)
    return cake


def test_step_sizes_that_move_images_are_no_warning(runtime, teacher):
    assert make(runtime).try_out(teacher) == []


def test_step_sizes_over_absurd_decades_are_told_with_what_to_set(runtime, teacher):
    (said,) = make(runtime, decades=12.0).try_out(teacher)
    share, decades = (int(re.search(r"about (\d+)%", said)[1]), float(re.search(r"noise\.decades=([\d.]+)", said)[1]))
    assert 50 <= share <= 90 and 0.5 < decades < 6
    assert make(runtime, decades=decades).try_out(teacher) == [], "the advice has to help"


@pytest.mark.parametrize("eps", [1e-12, 1e-9])
def test_without_one_step_size_that_works_it_says_what_to_try(runtime, teacher, eps):
    (said,) = make(runtime, schedule="constant", eps=eps).try_out(teacher)
    assert said.startswith("about 100% of the 20 sets would stay noise") and "try another noise.eps" in said


def test_steps_that_are_too_large_are_not_called_too_small():
    trials = [pilot.Trial(10.0**-k, float(k > 2)) for k in range(5)]
    (said,) = pilot.advice(trials, rounds=10, steps=3, noise=Noise())
    assert "which are too large; set noise.eps=1.0e-03" in said


def test_the_small_sets_of_a_trial_move_as_whole_ones(runtime, teacher):
    for eps in (0.002, 0.0002):
        few, whole = (make(runtime, steps=12, batch_size=100, schedule="constant", eps=eps) for _ in range(2))
        whole._small = lambda whole=whole: whole
        few, whole = (sum(trial.reached for trial in cake.trial(teacher)) / 8 for cake in (few, whole))
        assert few == pytest.approx(whole, abs=0.1)


def test_a_trial_changes_no_image_and_no_count(runtime, teacher):
    plain, tried = make(runtime, steps=2), make(runtime, steps=2)
    before = teacher.evals.copy()
    tried.try_out(teacher)
    assert teacher.evals == before
    first, second = (cake.synthesize(range(1), teacher).images for cake in (plain, tried))
    assert agree(first, second)


@pytest.mark.parametrize(("options", "tries"), [({}, True), ({"rounds": 15}, False), ({"class_weight": 0.0}, False)])
def test_a_trial_is_made_where_it_is_cheap_and_images_have_a_class_to_reach(runtime, teacher, options, tries):
    cake, made = make(runtime, **options), []
    cake.trial = lambda teacher: made.append(teacher) or []
    assert cake.try_out(teacher) == [] and bool(made) == tries


def test_a_run_says_it_in_its_log_and_its_result(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(pilot, "SETS", 1)
    size = ("synthesizer.batch_size=100", "synthesizer.rounds=10", "limit.rounds=10")
    result = run(tmp_path, "synthesizer=cake", *size, "noise.eps=1e-9", "until=pool", "data.limit=200")
    assert any("sets would stay noise" in text for text in result["warnings"])
    assert "sets would stay noise" in caplog.text
