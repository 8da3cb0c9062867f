import pytest
import torch

from dfkd.triggers import Patch


def test_a_solid_patch_sits_margin_pixels_from_the_bottom_right_corner():
    images = torch.full((2, 3, 6, 8), 0.25)
    stamped = Patch(size=2, margin=1, value=0.75)(images)
    expected = images.clone()
    expected[:, :, 3:5, 5:7] = 0.75
    assert torch.equal(stamped, expected)
    assert (images == 0.25).all()


def test_without_a_margin_the_patch_touches_the_corner():
    stamped = Patch(size=1, margin=0)(torch.zeros(1, 1, 4, 4))
    assert stamped.nonzero().tolist() == [[0, 0, 3, 3]]


@pytest.mark.parametrize("size", [2, 3])
def test_a_checker_alternates_and_is_bright_in_the_corner(size):
    stamped = Patch(size=size, margin=0, pattern="checker")(torch.full((1, 1, 4, 4), 0.5))[0, 0, -size:, -size:]
    for row in range(size):
        for column in range(size):
            distance = (size - 1 - row) + (size - 1 - column)
            assert stamped[row, column] == (1.0 if distance % 2 == 0 else 0.0)


def test_a_patch_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="does not fit"):
        Patch(size=4, margin=1)(torch.zeros(1, 1, 4, 8))


def test_badnets_square_on_32_pixels_is_rows_and_columns_27_to_30():
    expected = torch.zeros(1, 1, 32, 32)
    expected[..., 27:31, 27:31] = 1
    assert torch.equal(Patch(size=4, margin=1, canvas=32)(torch.zeros(1, 1, 32, 32)), expected)


@pytest.mark.parametrize(("side", "rows"), [(8, range(7, 8)), (16, range(13, 15)), (64, range(54, 62))])
def test_a_solid_square_grows_and_shrinks_with_the_image(side, rows):
    stamped = Patch(size=4, margin=1, canvas=32)(torch.zeros(1, 3, side, side))
    assert stamped[0].nonzero().tolist() == [[c, i, j] for c in range(3) for i in rows for j in rows]


def test_badnets_grid_is_white_black_white_from_the_corner_inward():
    grid = Patch(size=3, margin=0, pattern=[[0, 0, 1], [0, 1, 0], [1, 0, 1]], canvas=32)
    for side, cell in ((8, 1), (32, 1), (64, 2)):
        corner = grid(torch.full((1, 1, side, side), 0.5))[0, 0].flip(0, 1)[: 3 * cell : cell, : 3 * cell : cell]
        assert corner.tolist() == [[1, 0, 1], [0, 1, 0], [1, 0, 0]]  # from the corner inward, rows up
    doubled = grid(torch.full((1, 1, 64, 64), 0.5))
    assert (doubled != 0.5).sum() == 36 and torch.equal(doubled[..., -6::2, -6::2], doubled[..., -5::2, -5::2])


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Patch(size=0),
        lambda: Patch(margin=-1),
        lambda: Patch(pattern="stripes"),
        lambda: Patch(value=1.5),
        lambda: Patch(canvas=0),
        lambda: Patch(size=2, pattern=[[0, 1]]),
        lambda: Patch(size=1, pattern=[[2]]),
    ],
)
def test_impossible_patches_are_refused(wrong):
    with pytest.raises(ValueError):
        wrong()
