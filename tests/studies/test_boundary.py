"""Distances to a boundary, and how much of it has a sample, where both are known."""

import pytest
import torch
from studies.boundary import boundary_pieces, covered_share, distances, set_table

from dfkd.report.runs import Run

SIDE = 20
AXIS = torch.linspace(0, 1, SIDE)
GRID = torch.cartesian_prod(AXIS, AXIS).view(SIDE, SIDE, 2)
LABELS = (GRID[..., 0] > 0.45).long()  # the boundary is a line across the second coordinate
CORNERS = GRID[0, 0], GRID[-1, -1]


def test_the_pieces_of_a_straight_boundary_are_one_row():
    pieces = boundary_pieces(LABELS, piece=5)
    assert pieces.shape == (4, 4) and pieces.sum() == 4 and pieces[1].all()
    assert not boundary_pieces(torch.zeros(SIDE, SIDE, dtype=torch.long), piece=5).any()


@pytest.mark.parametrize(
    ("samples", "share"),
    [([[0.4, 0.1]], 25), ([[0.4, 0.1], [0.45, 0.9]], 50), ([[0.9, 0.1], [7.0, 7.0], [-1.0, 0.4]], 0)],
)
def test_a_piece_is_covered_by_a_sample_in_it_and_by_none_outside_of_the_plane(samples, share):
    assert covered_share(boundary_pieces(LABELS, piece=5), torch.tensor(samples), *CORNERS) == share


def test_the_distance_is_that_to_the_nearest_change_of_class():
    last = AXIS[AXIS <= 0.45].max().item()
    found = distances(LABELS, GRID, torch.tensor([[1.0, 0.5], [last, 0.5]]))
    assert found[0].item() == pytest.approx(1 - last, abs=0.03) and found[1].item() < 0.03


def test_points_are_compared_with_as_many_points_of_noise():
    """CAKE's points are 0.1 (seed 0) and 0.3 (seed 1) nearer than noise; there is no noise of 200 points."""

    def run(synthesizer, seed, distance, points):
        config = {"seed": seed, "synthesizer": {"name": synthesizer, "class_weight": 0.01}, "metrics": {}}
        student = {"iacc": 90.0, "grid_agreement": 99.0 + seed * (synthesizer == "cake_2d")}
        where = {"covered": 50.0, "distance": distance, "near": 10.0, "points": points}
        result = {"student": student, "teacher": {"iacc": 95.0}, "derived": {"boundary": where}}
        return Run("a", None, "done", config, result | {"pool_labels": [points // 2] * 2})

    found = [run("noise_images", seed, 0.5, 10_000) for seed in (0, 1)]
    found += [run("cake_2d", 0, 0.4, 10_000), run("cake_2d", 1, 0.2, 10_000), run("cake_2d", 0, 0.1, 200)]
    *_, noise, cake, few = set_table(found).splitlines()
    assert "0.50 ± 0.00" in noise and " to " not in noise
    assert "| -0.20 (-1.47 to +1.07) |" in cake and "| +0.5 (-5.9 to +6.9)" in cake
    assert few.startswith("| cake_2d, 200 points") and " to " not in few
