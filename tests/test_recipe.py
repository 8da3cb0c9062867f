import itertools

import pytest
import torch
from torch import nn

from dfkd.recipe import Recipe


def rates(recipe: Recipe, steps: int) -> list[float]:
    """Learning rate of every step."""
    parameter = nn.Parameter(torch.zeros(1))
    stepper, seen = recipe.make([parameter], steps), []
    for _ in range(steps):
        seen.append(stepper.lr)
        stepper.step(parameter.sum())
    return seen


def test_cosine_goes_from_the_peak_towards_the_final_share():
    seen = rates(Recipe(lr=0.2, schedule="cosine", final=0.5), 4)
    assert seen == pytest.approx([0.2, 0.1 + 0.1 * 0.8535534, 0.15, 0.1 + 0.1 * 0.1464466])


def test_exponential_multiplies_at_every_step():
    assert rates(Recipe(lr=0.1, schedule="exponential", gamma=0.5), 4) == pytest.approx([0.1, 0.05, 0.025, 0.0125])


def test_constant_stays():
    assert rates(Recipe(lr=0.3, schedule="constant"), 3) == [0.3, 0.3, 0.3]


def test_one_cycle_starts_at_a_25th_peaks_and_ends_above_zero():
    seen = rates(Recipe(lr=0.5, schedule="one_cycle"), 100)
    assert seen[0] == pytest.approx(0.5 / 25)
    assert max(seen) == pytest.approx(0.5, rel=1e-3)
    assert 25 <= seen.index(max(seen)) <= 32
    assert 0 < seen[-1] < 0.005


def test_one_step_of_sgd_with_weight_decay_by_hand():
    parameter = nn.Parameter(torch.tensor([2.0]))
    stepper = Recipe(lr=0.1, momentum=0.5, weight_decay=0.01, schedule="constant").make([parameter], 2)
    stepper.step(3 * parameter.sum())
    assert parameter.item() == pytest.approx(2 - 0.1 * (3 + 0.01 * 2))
    first = 3 + 0.01 * 2
    value = parameter.item()
    stepper.step(3 * parameter.sum())
    assert parameter.item() == pytest.approx(value - 0.1 * (3 + 0.01 * value + 0.5 * first))


def test_clip_bounds_the_whole_gradient_norm():
    parameters = [nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))]
    recipe = Recipe(lr=1.0, momentum=0.0, weight_decay=0.0, schedule="constant", clip=1.0)
    recipe.make(parameters, 1).step(30 * parameters[0].sum() + 40 * parameters[1].sum())
    assert [p.item() for p in parameters] == pytest.approx([-0.6, -0.8], rel=1e-4)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_every_optimizer_walks_downhill(name):
    parameter = nn.Parameter(torch.tensor([1.0]))
    stepper = Recipe(optimizer=name, lr=0.05, schedule="constant").make([parameter], 20)
    for _ in range(20):
        stepper.step(parameter.square().sum())
    assert abs(parameter.item()) < 0.7


@pytest.mark.parametrize(
    "wrong",
    [
        {"optimizer": "lion"},
        {"schedule": "step"},
        {"lr": 0.0},
        {"lr": -1.0},
        {"batch_size": 0},
        {"weight_decay": -1e-4},
        {"momentum": 1.0},
        {"gamma": 0.0},
        {"final": 1.5},
        {"clip": -1.0},
        {"momentum": 0.0, "nesterov": True},
    ],
)
def test_impossible_numbers_are_refused(wrong):
    with pytest.raises(ValueError):
        Recipe(**wrong)


def test_triangular_rises_and_falls_in_straight_lines():
    seen = rates(Recipe(lr=1.0, schedule="triangular", final=0.1), 100)
    assert seen[0] == pytest.approx(0.2) and max(seen) == seen[23] == pytest.approx(1.0)
    steps = [b - a for a, b in itertools.pairwise(seen)]
    assert steps[:23] == pytest.approx([0.8 / 23] * 23) and steps[23:] == pytest.approx([-0.9 / 77] * 76)
