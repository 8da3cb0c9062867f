"""Whole runs of the smallest numbers: the methods with a growing pool under a defense, in colour and bfloat16."""

import pytest
from runner import run

SMALL = (
    "synthesizer.batch_size=20",
    "student.recipe.batch_size=16",
    "evaluate.images=50",
    "runtime.precision=bfloat16",
)


@pytest.mark.parametrize("name", ["cmi", "fast", "nayer", "adaptive_deepinversion"])
def test_a_defense_splits_the_pool_and_steers_the_method(tmp_path, name):
    narrow = () if name == "adaptive_deepinversion" else ("synthesizer.generator.width=8",)
    result = run(tmp_path, f"synthesizer={name}", *SMALL, *narrow, "data.channels=3", "defense=atesc")
    evals, images = result["teacher_evals"], 2 * 20
    trained = 1 if name in ("fast", "nayer") else 2  # rounds: the first of these two is a warm-up
    assert evals["distill"] == images + trained * 2 * 16  # two student steps a round, on 16 augmented images
    assert evals["synthesis"] == (2 if name == "cmi" else 1) * 2 * images  # cmi shows the teacher two views
    assert evals["split"] > images  # of the pool, and of the steered steps
    assert 0 <= result["student"]["iacc"] <= 100
