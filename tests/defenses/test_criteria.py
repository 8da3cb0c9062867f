import pytest
import torch

from dfkd.attacks import PGD
from dfkd.defenses import All, Inverted, PGDFlip, Random


@pytest.fixture
def images(small_digits) -> torch.Tensor:
    return small_digits.val.pixels(slice(0, 120))


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(4)


def flip() -> PGDFlip:
    return PGDFlip(eps=16 / 255, steps=3, box=(0.0, 1.0))


def test_fragile_is_what_the_attack_flips(teacher, images):
    split = flip().split(teacher, images, seeded())
    result = PGD(eps=16 / 255, steps=3).attack(teacher, images, seeded())
    assert torch.equal(split.fragile, result.flipped)
    assert torch.equal(split.score, result.margin)
    assert 10 < split.fragile.sum() < 110


def test_random_has_the_same_size_but_other_members(teacher, images):
    true = flip().split(teacher, images, seeded()).fragile
    chance = Random(flip()).split(teacher, images, seeded()).fragile
    assert chance.sum() == true.sum()
    assert not torch.equal(chance, true)
    again = Random(flip()).split(teacher, images, seeded()).fragile
    assert torch.equal(chance, again)


def test_random_knows_nothing_of_the_true_split(teacher, images):
    generator, hits = torch.Generator().manual_seed(0), 0.0
    true = flip().split(teacher, images, seeded()).fragile
    for _ in range(30):
        hits += Random(flip()).split(teacher, images, generator).fragile[true].float().mean().item() / 30
    assert hits == pytest.approx(true.float().mean().item(), abs=0.05)


def test_inverted_is_the_opposite(teacher, images):
    true, inverted = flip().split(teacher, images, seeded()), Inverted(flip()).split(teacher, images, seeded())
    assert torch.equal(inverted.fragile, ~true.fragile)
    assert torch.equal(inverted.score, -true.score)


def test_all_makes_everything_fragile_at_no_cost(teacher, images):
    assert All().split(teacher, images, seeded()).fragile.all()
    assert not teacher.evals
    assert All().warnings() == []


def test_no_warnings_before_anything_was_attacked():
    assert flip().warnings() == []


@pytest.mark.parametrize("wrap", [lambda c: c, Random, Inverted])
def test_warnings_of_a_blind_attack_come_through_the_controls(linear, wrap):
    steep = linear([[1e4], [-1e4]])
    criterion = wrap(PGDFlip(eps=0.01, steps=2, random_start=False))
    assert criterion.warnings() == []
    criterion.split(steep, torch.full((10, 1, 1, 1), 0.5), seeded())
    said = " ".join(criterion.warnings())
    assert "100% of the images" in said and "saturated" in said


def test_warnings_speak_of_the_share_over_all_splits(linear):
    steep, criterion = linear([[1e4], [-1e4]]), PGDFlip(eps=1e-6, steps=1, random_start=False)
    criterion.split(steep, torch.full((10, 1, 1, 1), 0.5), seeded())
    criterion.split(steep, torch.full((30, 1, 1, 1), 1e-5), seeded())
    assert any("saturated on 25%" in text for text in criterion.warnings())


def test_a_good_attack_warns_of_nothing(teacher, images):
    criterion = flip()
    criterion.split(teacher, images, seeded())
    assert criterion.warnings() == []


def test_impossible_numbers_are_refused():
    for wrong in ({"eps": -1.0, "steps": 1}, {"eps": 0.1, "steps": 0}, {"eps": 0.1, "steps": 1, "loss": "x"}):
        with pytest.raises(ValueError):
            PGDFlip(**wrong)
