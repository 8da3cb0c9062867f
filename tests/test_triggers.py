import pytest
import torch

from dfkd.triggers import Blend, Patch


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


def test_blend_mixes_one_seeded_pattern_into_every_image():
    trigger = Blend(ratio=0.2, pattern_seed=3)
    pattern = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(3))
    images = torch.rand(5, 3, 4, 4)
    assert torch.allclose(trigger(images), 0.8 * images + 0.2 * pattern)
    assert torch.equal(trigger(images[2:3]), trigger(images)[2:3])
    assert not torch.equal(Blend(0.2, 4)(images), trigger(images))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Patch(size=0),
        lambda: Patch(margin=-1),
        lambda: Patch(pattern="stripes"),
        lambda: Patch(value=1.5),
        lambda: Blend(ratio=0.0),
        lambda: Blend(ratio=1.0),
    ],
)
def test_impossible_triggers_are_refused(wrong):
    with pytest.raises(ValueError):
        wrong()
