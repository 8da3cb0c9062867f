"""Distances to a boundary, and how much of it has a sample, where both are known."""

import pytest
import torch
from studies.boundary import boundary_pieces, covered_share, distances

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
