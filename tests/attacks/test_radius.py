"""Flip radii: the exact one of a linear classifier, and that of an attack."""

import pytest
import torch

from dfkd.attacks import PGD, first_order_radius, flip_radius

WEIGHT = [[1.0, -2.0, 0.5], [0.5, 1.0, 0.0], [-1.0, 0.0, 3.0]]


def images(count: int = 40) -> torch.Tensor:
    return torch.rand(count, 1, 3, 1, generator=torch.Generator().manual_seed(1))


def nearest_by_logit(x: torch.Tensor) -> float:
    """Radius at which the second largest logit of a linear classifier equals the largest: distance to a plane."""
    w = torch.tensor(WEIGHT)
    logits = w @ x.flatten()
    first, second = logits.topk(2).indices
    return ((logits[first] - logits[second]) / (w[first] - w[second]).abs().sum()).item()


def test_the_first_order_is_exact_for_a_linear_classifier(linear):
    model, x = linear(WEIGHT), images()
    radii = first_order_radius(model, x, model(x))
    assert radii.tolist() == pytest.approx([nearest_by_logit(one) for one in x], rel=1e-4)


def test_without_a_gradient_the_radius_is_infinite(linear):
    model, x = linear([[0.0] * 3, [0.0] * 3], [1.0, 0.0]), images(3)
    assert first_order_radius(model, x, model(x)).isinf().all()


def test_bisection_finds_the_radius_of_two_classes(linear):
    model, x = linear([[2.0, -1.0, 1.0], [0.0, 0.0, 0.0]], [-0.4, 0.0]), images()
    true = first_order_radius(model, x, model(x))
    attack = PGD(eps=1.0, steps=3, random_start=False, box=None)
    found = flip_radius(attack, model, x, model(x), torch.Generator(), low=1e-3, high=1.0, halvings=9)
    known = (true > 1e-3) & (true < 1.0)
    assert known.sum() > 30
    assert (found / true)[known].log().abs().max() < torch.tensor(1e3).log() / 2**10 + 1e-3


def test_an_image_that_nothing_flips_has_the_largest_radius(linear):
    model, x = linear([[0.0] * 3, [0.0] * 3], [1.0, 0.0]), images(2)
    assert flip_radius(PGD(eps=1.0), model, x, model(x), torch.Generator(), high=0.5).min() > 0.45


def test_the_model_and_its_gradients_stay(linear, unchanged):
    model, x = linear(WEIGHT), images(4)
    check = unchanged(model)
    first_order_radius(model, x, model(x)), flip_radius(PGD(eps=1.0), model, x, model(x), torch.Generator())
    check()
