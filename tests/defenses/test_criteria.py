import pytest
import torch

from dfkd.attacks import PGD
from dfkd.defenses import All, Inverted, PGDFlip, Random


@pytest.fixture
def images(small_digits) -> torch.Tensor:
    return small_digits.val.pixels(slice(0, 120))


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(4)


def split(criterion, teacher, images, generator=None):
    return criterion.split(teacher, images, teacher.predict(images), generator or seeded())


def flip() -> PGDFlip:
    return PGDFlip(eps=16 / 255, steps=3, box=(0.0, 1.0))


def test_fragile_is_what_the_attack_flips(teacher, images):
    found = split(flip(), teacher, images)
    result = PGD(eps=16 / 255, steps=3).attack(teacher, images, seeded())
    assert torch.equal(found.fragile, result.flipped)
    assert torch.equal(found.score, result.margin)
    assert 10 < found.fragile.sum() < 110


def test_random_has_the_same_size_but_other_members(teacher, images):
    true = split(flip(), teacher, images).fragile
    chance = split(Random(flip()), teacher, images).fragile
    assert chance.sum() == true.sum()
    assert not torch.equal(chance, true)
    again = split(Random(flip()), teacher, images).fragile
    assert torch.equal(chance, again)


def test_random_knows_nothing_of_the_true_split(teacher, images):
    generator, hits = torch.Generator().manual_seed(0), 0.0
    true = split(flip(), teacher, images).fragile
    for _ in range(30):
        hits += split(Random(flip()), teacher, images, generator).fragile[true].float().mean().item() / 30
    assert hits == pytest.approx(true.float().mean().item(), abs=0.05)


def test_inverted_is_the_opposite(teacher, images):
    true, inverted = split(flip(), teacher, images), split(Inverted(flip()), teacher, images)
    assert torch.equal(inverted.fragile, ~true.fragile)
    assert torch.equal(inverted.score, -true.score)


def test_all_makes_everything_fragile_at_no_cost(teacher, images):
    logits = teacher.predict(images)
    before = teacher.evals.total()
    assert All().split(teacher, images, logits, seeded()).fragile.all()
    assert teacher.evals.total() == before
    assert All().warnings() == []


def test_no_warnings_before_anything_was_attacked():
    assert flip().warnings() == []


@pytest.mark.parametrize("wrap", [lambda c: c, Random, Inverted])
def test_warnings_of_a_blind_attack_come_through_the_controls(linear, wrap):
    steep = linear([[1e4], [-1e4]])
    criterion = wrap(PGDFlip(eps=0.01, steps=2, random_start=False))
    assert criterion.warnings() == []
    split(criterion, steep, torch.full((10, 1, 1, 1), 0.5))
    said = " ".join(criterion.warnings())
    assert "100% of the images" in said and "saturated" in said


def test_warnings_speak_of_the_share_over_all_splits(linear):
    steep, criterion = linear([[1e4], [-1e4]]), PGDFlip(eps=1e-6, steps=1, random_start=False)
    split(criterion, steep, torch.full((10, 1, 1, 1), 0.5))
    split(criterion, steep, torch.full((30, 1, 1, 1), 1e-5))
    assert any("saturated on 25%" in text for text in criterion.warnings())


def test_a_good_attack_warns_of_nothing(teacher, images):
    criterion = flip()
    split(criterion, teacher, images)
    assert criterion.warnings() == []


def test_impossible_numbers_are_refused():
    for wrong in ({"eps": -1.0, "steps": 1}, {"eps": 0.1, "steps": 0}, {"eps": 0.1, "steps": 1, "loss": "x"}):
        with pytest.raises(ValueError):
            PGDFlip(**wrong)
