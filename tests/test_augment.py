import pytest
import torch

from dfkd.augment import augment, crop, flip


def ramp(count: int = 40, side: int = 16) -> torch.Tensor:
    """Images whose pixel values tell their row and column."""
    return torch.arange(side * side).float().view(1, 1, side, side).repeat(count, 1, 1, 1)


def test_none_gives_the_images_back(random):
    images = torch.rand(3, 1, 8, 8)
    assert torch.equal(augment(images, "none", random), images)


def test_every_image_is_shifted_on_its_own_by_at_most_pad_pixels(random):
    images = ramp()
    shifted = crop(images, 2, random)
    middle = shifted[:, 0, 8, 8] - images[:, 0, 8, 8]
    rows, columns = (middle / 16).round(), middle - 16 * (middle / 16).round()
    assert set(rows.tolist()) == {-2, -1, 0, 1, 2}
    assert set(columns.tolist()) == {-2, -1, 0, 1, 2}
    for image, row, column in zip(shifted[:, 0], rows.int().tolist(), columns.int().tolist(), strict=True):
        source = torch.arange(16)
        expected = images[0, 0][(source + row).clamp(0, 15)][:, (source + column).clamp(0, 15)]
        assert torch.equal(image, expected)  # edge pixels are repeated


def test_channels_move_together(random):
    images = ramp().repeat(1, 3, 1, 1)
    shifted = crop(images, 2, random)
    assert torch.equal(shifted[:, 0], shifted[:, 2])


def test_flip_mirrors_about_half_and_leaves_the_rest(random):
    images = torch.rand(400, 1, 4, 4, generator=random)
    flipped = flip(images, random)
    same = (flipped == images).flatten(1).all(1)
    mirrored = (flipped == images.flip(3)).flatten(1).all(1)
    assert (same | mirrored).all()
    assert 150 < mirrored.sum() < 250


@pytest.mark.parametrize(("how", "mirrors"), [("shift", False), ("crop_flip", True)])
def test_only_crop_flip_mirrors(random, how, mirrors):
    row = augment(ramp(), how, random)[:, 0, 8]
    assert bool((row[:, 5] > row[:, 10]).any()) == mirrors


def test_same_generator_same_images():
    images = torch.rand(8, 3, 16, 16)
    first, second = (augment(images, "crop_flip", torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)
