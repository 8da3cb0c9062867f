import itertools

import pytest
import torch
from runner import DFQ, NOISE, TINY, composed, make_cell, run
from torch import Tensor

from dfkd.config.cell import Cell
from dfkd.errors import ConfigError
from dfkd.measures import measure_leakage
from dfkd.measures.leakage import features
from dfkd.run.run_cell import run_cell
from dfkd.stages.prepare import prepare


def slow(pool: Tensor, train: Tensor, test: Tensor) -> dict:
    """The definitions, pair by pair."""
    to_train = [min(torch.dist(x, y).item() for y in train) for x in pool]
    to_test = [min(torch.dist(x, y).item() for y in test) for x in pool]
    members, others = ([-min(torch.dist(x, y).item() for y in pool) for x in real] for real in (train, test))
    pairs = [(m > o) + (m == o) / 2 for m, o in itertools.product(members, others)]
    return {
        "nearer_train": sum(a < b for a, b in zip(to_train, to_test, strict=True)) / len(pool),
        "distance_train": sorted(to_train)[(len(pool) - 1) // 2],
        "distance_test": sorted(to_test)[(len(pool) - 1) // 2],
        "membership_auroc": sum(pairs) / len(pairs),
    }


@pytest.mark.parametrize("chunk", [7, 500])
def test_it_measures_what_its_definitions_say(random, monkeypatch, chunk):
    monkeypatch.setattr("dfkd.measures.leakage.CHUNK", chunk)
    pool, train, test = (torch.randn(n, 3, generator=random) for n in (20, 12, 9))
    measured, expected = measure_leakage(pool, train, test), slow(pool, train, test)
    assert {key: measured[key] for key in expected} == pytest.approx(expected, abs=1e-4)
    assert measured["expected"] == round(12 / 21, 4)


def test_copies_of_training_images_are_seen(random):
    train, test = torch.rand(50, 64, generator=random), torch.rand(50, 64, generator=random)
    measured = measure_leakage(train[:40], train, test)
    assert measured["nearer_train"] == 1 and measured["p"] < 0.01 and measured["distance_train"] == 0
    assert measured["membership_tpr"] == 0.8 and measured["membership_auroc"] > 0.8
    assert measure_leakage(train, train, test)["membership_auroc"] == 1


def test_images_that_know_no_image_lie_in_the_interval_by_chance(random):
    inside = 0
    for _ in range(20):
        measured = measure_leakage(*(torch.randn(80, 5, generator=random) for _ in range(3)), permutations=200)
        low, high = measured["interval"]
        assert low < measured["expected"] == 0.5 < high
        inside += low <= measured["nearer_train"] <= high
    assert inside >= 17


def test_one_real_image_near_to_all_makes_the_interval_wide(random):
    pool, real = 0.01 * torch.randn(50, 4, generator=random), torch.randn(40, 4, generator=random) + 3
    real[3] = 0
    measured = measure_leakage(pool, real[:20], real[20:])
    assert measured["nearer_train"] == 1 and measured["interval"] == [0, 1] and measured["p"] > 0.3


def test_features_are_those_of_the_last_layer(trained, small_digits, runtime):
    images = small_digits.test.take(slice(0, 30))
    found = features(trained, images, runtime)
    weight, bias = trained.net.head.weight, trained.net.head.bias
    assert torch.allclose(found.to(weight.device) @ weight.T + bias, trained.predict(images.pixels()), atol=1e-4)


def test_real_images_as_a_pool_are_the_ceiling(tmp_path):
    """The whole way: an offline pool of the training images themselves, and images of noise."""
    small = ("until=leakage", "data.limit=40")
    tiny = [word for word in TINY if "rounds" not in word]
    cell = Cell(composed("synthesizer=real", *tiny, "student.recipe.batch_size=16", *small, f"outputs={tmp_path}"))
    real = run_cell(cell)["leakage"]
    noise = run(tmp_path, *NOISE, *small)["leakage"]
    assert real["pixels"]["nearer_train"] == real["features"]["nearer_train"] == 1
    assert real["pixels"]["membership_auroc"] == 1 and real["train_images"] == real["test_images"] == 40
    assert noise["pixels"]["distance_train"] > 1 and noise["pixels"]["p"] > 0.01


def test_an_online_synthesizer_leaves_as_many_images_as_are_asked_for(tmp_path):
    online = (*DFQ, "until=leakage", "data.limit=40")
    with pytest.raises(ConfigError, match=r"synthesizer=dfq keeps only .*; set student\.samples"):
        prepare(make_cell(tmp_path, *online))
    result = run(tmp_path, *online, "student.samples=50")
    assert result["leakage"]["pool_images"] == 50 and 0 <= result["leakage"]["features"]["nearer_train"] <= 1
