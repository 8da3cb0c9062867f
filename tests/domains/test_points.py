import pytest
import torch

from dfkd.domains import POINTS, points


@pytest.mark.parametrize(("kind", "classes"), [("two_moons", 2), ("circles", 2), ("checkerboard", 2), ("clusters", 9)])
def test_the_sets_are_standardised_images_of_two_pixels(kind, classes):
    domain = points(kind, train=900, val=300, test=200)
    assert domain.shape == (1, 2, 1) and domain.classes == classes and domain.modality is POINTS
    assert (len(domain.train), len(domain.val), len(domain.test)) == (900, 300, 200)
    flat = domain.train.x.flatten(1)
    assert flat.mean(0).tolist() == pytest.approx([0, 0], abs=1e-5)
    assert flat.std(0, correction=0).tolist() == pytest.approx([1, 1], abs=1e-4)
    assert domain.train.y.unique().tolist() == list(range(classes))
    assert (domain.mean, domain.std) == ([0.0], [1.0])


@pytest.mark.parametrize("kind", ["two_moons", "circles", "checkerboard", "clusters"])
def test_the_parts_are_drawn_independently_and_repeatably(kind):
    domain, again, other = (points(kind, 100, 100, 100, split_seed=s) for s in (0, 0, 1))
    assert not torch.equal(domain.val.x, domain.test.x) and not torch.equal(domain.train.x, domain.val.x)
    assert torch.equal(domain.train.x, again.train.x) and torch.equal(domain.test.y, again.test.y)
    assert not torch.equal(domain.train.x, other.train.x)


def test_neighbouring_fields_of_the_checkerboard_differ():
    domain = points("checkerboard", train=2000)
    cell = (domain.train.x.flatten(1) / 1.2).round().long()
    assert torch.equal(cell.sum(1) % 2, domain.train.y)


def test_the_inner_circle_is_one_class():
    domain = points("circles", train=1000)
    radius = domain.train.x.flatten(1).norm(dim=1)
    assert radius[domain.train.y == 1].max() < radius[domain.train.y == 0].min()


def test_an_unknown_set_names_the_known_ones():
    with pytest.raises(ValueError, match=r"'moons'.*two_moons"):
        points("moons")
