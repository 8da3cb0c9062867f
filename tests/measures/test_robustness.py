import copy
from dataclasses import replace

import pytest
import torch

from dfkd.attacks import PGD
from dfkd.measures import PGDAccuracy
from dfkd.measures.base import chosen_images


def test_accuracy_falls_with_the_radius_from_the_clean_one(exam):
    values = [PGDAccuracy(eps, steps=5, images=200)(exam) for eps in (0, 4 / 255, 16 / 255, 64 / 255)]
    images = chosen_images(exam.id.images, 200)
    clean = (exam.model.predict(images.pixels()).argmax(1).cpu() == images.y).float().mean().item()
    assert values[0] == pytest.approx(100 * clean)
    assert values == sorted(values, reverse=True) and values[0] > 80 > 20 > values[-1]


def test_it_counts_what_is_right_and_stays_so(exam):
    """Against the attack by itself, whose flips of wrong answers do not matter."""
    images = chosen_images(exam.id.images, 100)
    logits = exam.model.predict(images.pixels())
    attack = PGD(eps=16 / 255, steps=5, loss="margin", random_start=True)
    result = attack.attack(exam.model, images.pixels(), torch.Generator().manual_seed(1), logits)
    by_hand = 100 * ((logits.argmax(1) == images.y.to(logits.device)) & ~result.flipped).float().mean().item()
    assert PGDAccuracy(16 / 255, steps=5, images=100)(exam) == pytest.approx(by_hand, abs=3)


def test_a_model_is_left_as_it_is_and_measured_in_evaluation_mode(exam, unchanged):
    measure, in_training = PGDAccuracy(8 / 255, steps=2, images=50), replace(exam, model=copy.deepcopy(exam.model))
    in_training.model.train().zero_grad()
    check, before = unchanged(in_training.model), torch.get_rng_state()
    assert measure(in_training) == measure(exam) and in_training.model.training
    assert torch.equal(torch.get_rng_state(), before)
    check()


@pytest.mark.parametrize("wrong", [{"eps": -1}, {"steps": 0}, {"images": 0}, {"loss": "none"}])
def test_impossible_options_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PGDAccuracy(**({"eps": 1 / 255} | wrong))
