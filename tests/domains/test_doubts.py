"""What looks like a mistake in a domain is told before time is spent on it."""

import pytest
import torch

from dfkd.domains import POINTS, Domain, Images, doubts, textured


def part(count: int = 40, classes: int = 4, seed: int = 0, **changes) -> Images:
    given = {
        "x": torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(seed)),
        "y": torch.arange(count) % classes,
    }
    return Images(**given | changes)


def domain(train: Images | None = None, test: Images | None = None, **more) -> Domain:
    return Domain("mine", 4, train or part(), part(seed=1), test or part(seed=2), **more)


def test_nothing_is_said_of_a_whole_domain():
    assert doubts(domain()) == []


@pytest.mark.parametrize(
    ("train", "test", "said"),
    [
        ({"y": torch.arange(40) % 3}, {}, "1 of 4 classes have no train image: what has none cannot be learned (3)"),
        ({"y": torch.zeros(40).long()}, {}, "3 of 4 classes have no train image: what has none cannot be learned"),
        ({}, {"y": torch.arange(40) % 2}, "2 of 4 classes have no test image: what has none is not tested (2, 3)"),
        ({"x": part().x * 255}, {}, "the train images lie in 0.3"),
        ({"x": part().x * 2 - 1}, {}, "the train images lie in -0.9"),
        ({"x": torch.zeros(40, 1, 4, 4)}, {}, "the train images are all black"),
        ({"x": torch.ones(40, 1, 4, 4)}, {}, "the train images are all white"),
        ({}, {"x": torch.full((40, 1, 4, 4), 255, dtype=torch.uint8)}, "the test images are all white"),
        ({"x": torch.full((40, 1, 4, 4), 0.25)}, {}, "the train images are all 0.25 everywhere"),
        ({"x": part().x / 255}, {}, "the train images show nothing: their pixels lie in"),
        ({"x": (part().x * 4).to(torch.uint8)}, {}, "the train images show nothing: their pixels lie in 0..0.01176"),
        ({"x": (part().x * 16).to(torch.uint8)}, {}, "the train images show nothing: their pixels lie in 0..0.05882"),
        ({"x": part().x[:, :, :1, :1].expand(-1, 1, 4, 4)}, {}, "40 of 40 train images are of one colour"),
        ({"x": torch.cat([part().x[:30], torch.zeros(10, 1, 4, 4)])}, {}, "10 of 40 train images are of one colour"),
    ],
)  # fmt: skip
def test_what_looks_like_a_mistake_is_said(train, test, said):
    (found,) = doubts(domain(part(**train), part(seed=2, **test)))
    assert found.startswith(f"domain 'mine': {said}")


def test_test_images_that_were_seen_in_training_are_counted():
    test, train, val = part(seed=2), part(), part(seed=1)
    test.x[:3], test.x[3:5] = train.x[7:10], val.x[:2]
    assert doubts(domain(test=test)) == ["domain 'mine': 5 of 40 test images are training images, too"]


def test_labels_that_do_not_matter_are_not_looked_at():
    assert doubts(domain(part(y=torch.zeros(40).long())), labels=False) == []


def test_points_are_no_images():
    flat = part(x=torch.full((40, 1, 2, 1), 3.0))
    assert doubts(Domain("points", 4, flat, flat, flat, [0.0], [1.0], POINTS)) == []


def test_many_classes_are_not_all_named():
    lonely = [part(seed=seed, y=torch.zeros(40).long()) for seed in range(3)]
    (train, _) = doubts(Domain("many", 1000, *lonely))
    assert "999 of 1000 classes" in train and "1, 2, 3, 4, 5, 6, 7, 8, ..." in train


def test_what_was_said_while_reading_stays_with_a_restyled_domain():
    assert doubts(textured(domain(notes=["3 skipped"])))[0] == "3 skipped"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"y": torch.zeros(40)}, r"test labels of shape \(40,\) and torch.float32; use \(N,\), torch.int64"),
        ({"y": torch.eye(40).long()}, r"test labels of shape \(40, 40\)"),
        ({"y": torch.arange(40) % 5}, r"labels 0\.\.4 in test, not 0\.\.3"),
        ({"x": torch.zeros(40, 4, 4)}, r"test images of shape \(40, 4, 4\)"),
        ({"x": torch.zeros(40, 1, 4, 4).long()}, r"torch.int64; use \(N, C, H, W\), torch.uint8 or float"),
        ({"x": torch.zeros(40, 4, 4, 1)}, "1x4x4 training images and 4x4x1 test images; set data.size"),
        ({"x": torch.zeros(40, 3, 4, 4)}, "1x4x4 training images and 3x4x4 test images; set data.size"),
        ({"x": torch.full((40, 1, 4, 4), torch.nan)}, "test images with NaN or infinite pixels"),
        ({"x": torch.full((40, 1, 4, 4), -torch.inf)}, "test images with NaN or infinite pixels"),
    ],
)
def test_a_domain_of_ones_own_that_cannot_be_is_refused(changes, said):
    with pytest.raises(ValueError, match=f"domain 'mine' has .*{said}"):
        domain(test=part(**changes))


def test_points_must_be_finite():
    bad = part(x=torch.full((40, 1, 2, 1), torch.inf))
    with pytest.raises(ValueError, match="infinite pixels"):
        Domain("points", 4, bad, bad, bad, [0.0], [1.0], POINTS)


@pytest.mark.parametrize(
    ("mean", "std", "said"),
    [
        ([125.3], [63.0], r"0\.\.255.*divide by 255: mean=\[0\.4914\] std=\[0\.2471\]"),
        ([0.5], [63.0], r"divide by 255: mean=\[0\.5\] std=\[0\.2471\]"),
        ([123.7], [1.0], r"divide by 255: mean=\[0\.4851\] std=\[0\.003922\]"),
        ([float("nan")], [0.2], "finite"),
        ([0.5], [float("inf")], "finite"),
        ([0.5], [0.0], "std must be positive"),
        ([0.5], [-0.2], "std must be positive"),
    ],
)
def test_a_normalisation_that_cannot_be_is_refused(mean, std, said):
    with pytest.raises(ValueError, match=said):
        domain(mean=mean, std=std)


@pytest.mark.parametrize(("mean", "std"), [([0.5], [0.5]), ([0.0], [1.0]), ([0.0], [1 / 255]), ([-1.0], [2.0])])
def test_usual_normalisations_are_taken(mean, std):
    assert domain(mean=mean, std=std).std == std
