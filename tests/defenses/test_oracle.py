import math

import pytest
import torch
from runner import run

from dfkd.defenses import ATEsc, Inverted, Oracle
from dfkd.defenses.oracle import fit_probe
from dfkd.domains import Images


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def images_of(x: torch.Tensor) -> Images:
    return Images(x, torch.zeros(len(x), dtype=torch.long)).to("cpu")


def test_the_probe_is_at_the_minimum_of_its_loss(random):
    features, labels = torch.randn(50, 3, generator=random), torch.arange(50) % 2
    probe = fit_probe(features, labels, decay=0.1)
    p = torch.sigmoid(features @ probe.weight[0] + probe.bias)
    slope = ((p - labels)[:, None] * features).mean(0) + 0.1 * probe.weight[0]
    assert slope.abs().max() < 1e-3 and (p - labels).mean().abs() < 1e-3
    assert not probe.weight.requires_grad


def test_two_points_have_the_logistic_solution():
    probe = fit_probe(torch.tensor([[1.0], [-1.0]]), torch.tensor([1, 0]), decay=0.2)
    w = probe.weight.item()  # 0.2 w = sigmoid(-w), bias 0
    assert 0.2 * w == pytest.approx(1 / (1 + math.exp(w)), abs=1e-3)
    assert probe.bias.item() == pytest.approx(0.0, abs=1e-4)


def test_it_tells_real_digits_from_noise_it_has_not_seen(teacher, small_digits, random, unchanged):
    check = unchanged(teacher)
    noise = torch.rand(400, 1, 8, 8, generator=random)
    oracle = Oracle(small_digits.train, images_of(noise[:300]), images=300, value=0.0)
    new = torch.cat([small_digits.val.pixels(slice(0, 100)), noise[300:]])
    found = oracle.split(teacher, new, teacher.predict(new), seeded())
    check()
    assert found.fragile[:100].float().mean() > 0.95 and found.fragile[100:].float().mean() < 0.05
    assert torch.equal(found.fragile, found.score > 0)
    assert oracle.accuracy > 0.95 and len(oracle.warnings()) == 1
    quantile = Oracle(small_digits.train, images_of(noise[:300]), quantile=0.25)
    assert quantile.split(teacher, new, teacher.predict(new), seeded()).fragile.sum() == 50


def test_it_always_says_that_it_is_a_diagnosis_and_when_its_probe_is_blind(teacher, small_digits):
    half = len(small_digits.train) // 2
    same = (small_digits.train.take(slice(0, half)), small_digits.train.take(slice(half, None)))
    oracle = Oracle(*same, images=400, value=0.0)
    oracle.split(teacher, small_digits.val.pixels(), torch.zeros(len(small_digits.val), 10), seeded())
    said = oracle.warnings()
    assert "diagnosis" in said[0] and "its own training images" in said[1]


def test_what_it_needs_is_said(small_digits, linear):
    with pytest.raises(ValueError, match="needs an OOD domain"):
        Oracle(small_digits.train, None, value=0.0)
    with pytest.raises(ValueError, match="images must be at least 1, got 0"):
        Oracle(small_digits.train, small_digits.train, images=0, value=0.0)
    oracle = Oracle(small_digits.train, small_digits.train, value=0.0)
    with pytest.raises(ValueError, match=r"needs the teacher.s features"):
        oracle.check(torch.nn.Flatten())
    assert ATEsc(oracle).uses_real_data and ATEsc(Inverted(oracle)).uses_real_data


def test_its_splits_of_one_pool_are_kept_apart_by_the_ood_domain(tmp_path):
    """An ordinary teacher and its pool are shared by all OOD domains; an oracle's split must not be."""
    options = ("synthesizer=noise_images", "synthesizer.batch_size=16", "student.recipe.batch_size=8", "defense=atesc")
    more = ("criterion@defense.criterion=oracle", "ntl_scenario=close_set", "data.limit=100")
    results = [run(tmp_path, *options, *more, f"domain@ntl_scenario.ood={ood}") for ood in ("textured", "tinted")]
    stored = {
        stage: len([f for f in (tmp_path / "store" / stage).iterdir() if not f.name.startswith(".")])
        for stage in ("teacher", "pool", "split")
    }
    assert stored == {"teacher": 1, "pool": 1, "split": 2}
    assert all("diagnosis" in " ".join(map(str, result["warnings"])) for result in results)
