import pytest
import torch

from dfkd.domains import textures


def test_they_have_the_asked_shape_and_as_many_of_each_kind():
    domain = textures(size=12, channels=3, train=40, val=8, test=12)
    assert domain.shape == (3, 12, 12) and domain.classes == 4
    assert [len(part) for part in (domain.train, domain.val, domain.test)] == [40, 8, 12]
    assert domain.train.y.bincount().tolist() == [10] * 4 and domain.train.x.dtype == torch.uint8
    assert textures().shape == (1, 16, 16) and len(textures(limit=5).test) == 5


def test_every_image_and_every_split_is_different_and_a_seed_repeats_them():
    domain = textures(train=20, val=20, test=20)
    every = torch.cat([part.x for part in (domain.train, domain.val, domain.test)]).flatten(1)
    assert len(every.unique(dim=0)) == 60
    assert torch.equal(textures(train=20).train.x, domain.train.x)
    assert not torch.equal(textures(train=20, split_seed=1).train.x, domain.train.x)


def test_the_kinds_are_what_they_are_called():
    x, y = (part := textures(size=32, train=80, val=4, test=4).train).pixels()[:, 0], part.y
    spread = x.flatten(1).amax(1) - x.flatten(1).amin(1)
    assert (spread > 0.15).all()
    steps = (x[:, :, 1:] - x[:, :, :-1]).abs().mean((1, 2)) / spread
    smooth, noise = torch.cat([steps[y == 0], steps[y == 2]]), steps[y == 3]
    assert smooth.max() < noise.min()  # neighbours are alike in stripes and rings, not in noise
    levels = torch.tensor([len(image.unique()) for image in x])
    assert (levels[y == 1] <= 3).all() and (levels[y != 1] > 10).all()  # checks are of two colours (or on an edge)


@pytest.mark.parametrize("wrong", [{"size": 0}, {"channels": 2}, {"train": 0}, {"val": 0}, {"test": -1}])
def test_impossible_numbers_are_refused(wrong):
    name, value = next(iter(wrong.items()))
    with pytest.raises(ValueError, match=rf"{name}.*{value}"):
        textures(**wrong)
