import math

import pytest
import torch

from dfkd.training import augment as augmentation
from dfkd.training.augment import crop, draw, draw_coins, draw_shifts, flip, resized_crop


def ramp(count: int = 40, side: int = 16) -> torch.Tensor:
    """Images whose pixel values tell their row and column."""
    return torch.arange(side * side).float().view(1, 1, side, side).repeat(count, 1, 1, 1)


def augment(images, how, generator):
    """Drawn and made."""
    return augmentation.augment(images, how, *draw(how, len(images), images.shape[2], generator))


def cut_mix(images, generator):
    return augmentation.cut_mix(images, *draw("cut_mix", len(images), images.shape[2], generator))


def crop_and_resize(images, smallest, mirror, generator):
    return resized_crop(images, smallest, mirror, torch.rand(5, len(images), generator=generator))


def test_numbers_are_drawn_in_an_order_that_results_depend_on():
    one, other = torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)
    shifts, mirrored = draw("crop_flip", 20, 16, one)
    assert torch.equal(shifts, torch.randint(5, (2, 20), generator=other))
    assert torch.equal(mirrored, torch.rand(20, generator=other) < 0.5)
    donor, numbers = draw("cut_mix", 20, 16, one)
    assert torch.equal(donor, torch.randperm(20, generator=other))
    assert torch.equal(numbers, torch.rand(5, 20, generator=other))
    assert draw("none", 20, 16, one) == () and torch.equal(torch.rand(1, generator=one), torch.rand(1, generator=other))


def test_none_gives_the_images_back(random):
    images = torch.rand(3, 1, 8, 8)
    assert torch.equal(augment(images, "none", random), images)


def test_every_image_is_shifted_on_its_own_by_at_most_pad_pixels(random):
    images = ramp()
    shifted = crop(images, 2, draw_shifts(40, 2, random))
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
    shifted = crop(images, 2, draw_shifts(40, 2, random))
    assert torch.equal(shifted[:, 0], shifted[:, 2])


def test_flip_mirrors_about_half_and_leaves_the_rest(random):
    images = torch.rand(400, 1, 4, 4, generator=random)
    flipped = flip(images, draw_coins(400, random))
    same = (flipped == images).flatten(1).all(1)
    mirrored = (flipped == images.flip(3)).flatten(1).all(1)
    assert (same | mirrored).all()
    assert 150 < mirrored.sum() < 250


@pytest.mark.parametrize(("how", "mirrors"), [("shift", False), ("crop_flip", True)])
def test_only_crop_flip_mirrors(random, how, mirrors):
    row = augment(ramp(), how, random)[:, 0, 8]
    assert bool((row[:, 5] > row[:, 10]).any()) == mirrors


def test_a_black_border_is_zero_where_the_edge_would_be_repeated():
    white = torch.ones(200, 3, 16, 16)
    shifts = draw_shifts(200, 2, torch.Generator().manual_seed(0))
    shifted = crop(white, 2, shifts, border="black")
    assert set(shifted.unique().tolist()) == {0.0, 1.0}
    assert (shifted.flatten(1).mean(1) < 1).float().mean() > 0.9  # 1 of 25 is not shifted
    assert torch.equal(crop(white, 2, shifts), white)


def test_black_crop_flip_shows_the_views_of_crop_flip_but_for_the_border():
    images = torch.rand(64, 3, 16, 16) + 1
    black, edge = (augment(images, how, torch.Generator().manual_seed(3)) for how in ("black_crop_flip", "crop_flip"))
    inside = black > 0
    assert torch.equal(black[inside], edge[inside]) and 0.7 < inside.float().mean() < 1


def test_a_view_passes_its_gradient_to_the_image():
    images = torch.rand(4, 1, 8, 8, requires_grad=True)
    augment(images, "black_crop_flip", torch.Generator().manual_seed(0)).sum().backward()
    assert images.grad.unique().tolist() in ([0.0, 1.0], [1.0])


def test_same_generator_same_images():
    images = torch.rand(8, 3, 16, 16)
    first, second = (augment(images, "crop_flip", torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)


def slow_part(image: torch.Tensor, width: float, height: float, x: float, y: float) -> torch.Tensor:
    """Bilinear samples of one channel at the centres of a part's pixels; coordinates as in torch's affine_grid."""
    rows, columns = image.shape
    out = torch.zeros_like(image)
    for i in range(rows):
        for j in range(columns):
            u = width * ((2 * j + 1) / columns - 1) + x
            v = height * ((2 * i + 1) / rows - 1) + y
            column = min(max(((u + 1) * columns - 1) / 2, 0), columns - 1)
            row = min(max(((v + 1) * rows - 1) / 2, 0), rows - 1)
            a, b = int(row), int(column)
            c, d = min(a + 1, rows - 1), min(b + 1, columns - 1)
            p, q = row - a, column - b
            top = (1 - q) * image[a, b] + q * image[a, d]
            out[i, j] = (1 - p) * top + p * ((1 - q) * image[c, b] + q * image[c, d])
    return out


def test_a_resized_crop_is_the_bilinear_enlargement_of_a_part(random):
    images = torch.rand(4, 1, 6, 6, generator=random)
    made = crop_and_resize(images, 0.25, False, torch.Generator().manual_seed(5))
    area, ratio, x, y, _ = torch.rand(5, 4, generator=torch.Generator().manual_seed(5)).tolist()
    for i in range(4):
        share, log_ratio = 0.25 + 0.75 * area[i], (2 * ratio[i] - 1) * math.log(4 / 3)
        width = min(1.0, math.sqrt(share * math.exp(log_ratio)))
        height = min(1.0, math.sqrt(share / math.exp(log_ratio)))
        part = slow_part(images[i, 0], width, height, (2 * x[i] - 1) * (1 - width), (2 * y[i] - 1) * (1 - height))
        assert torch.allclose(made[i, 0], part, atol=1e-5)


def test_half_of_the_resized_crops_are_mirrored_where_asked_for(random):
    images = ramp(200, 8)
    made = crop_and_resize(images, 1.0, True, random)
    rising = made[:, 0, 4, 6] > made[:, 0, 4, 1]
    assert 60 < rising.sum() < 140
    made = crop_and_resize(images, 1.0, False, random)
    assert (made[:, 0, 4, 6] > made[:, 0, 4, 1]).all()


def test_gradients_pass_a_resized_crop(random):
    images = torch.rand(3, 2, 8, 8, generator=random).requires_grad_()
    crop_and_resize(images, 0.25, True, random).sum().backward()
    assert images.grad.flatten(1).abs().sum(1).gt(0).all()


def test_cut_mix_pastes_one_box_of_the_donor_in_its_place(random):
    images = torch.arange(400.0)[:, None, None, None] + torch.arange(16 * 12).view(1, 1, 16, 12) / 1000
    images = images.repeat(1, 3, 1, 1)
    mixed, donor = cut_mix(images, random)
    assert 150 < (donor != torch.arange(400)).sum() < 250  # about half
    for i in range(400):
        foreign = mixed[i, 0] != images[i, 0]
        assert torch.equal(mixed[i][:, ~foreign], images[i][:, ~foreign])
        assert torch.equal(mixed[i][:, foreign], images[donor[i]][:, foreign])
        if donor[i] != i:
            rows, columns = foreign.any(1).nonzero().flatten(), foreign.any(0).nonzero().flatten()
            assert foreign.sum() == len(rows) * len(columns)  # a rectangle
            assert 4 <= len(rows) <= 12 and 3 <= len(columns) <= 9
            assert rows[-1] - rows[0] + 1 == len(rows) and columns[-1] - columns[0] + 1 == len(columns)


def test_boxes_of_cut_mix_reach_every_pixel_and_every_size(random):
    images = torch.arange(2000.0)[:, None, None, None].expand(-1, 1, 8, 8)
    mixed, donor = cut_mix(images, random)
    foreign = (mixed != images)[:, 0]
    assert foreign.any(0).all()
    sizes = {(int(f.any(1).sum()), int(f.any(0).sum())) for f in foreign[donor != torch.arange(2000)]}
    assert sizes == {(height, width) for height in range(2, 7) for width in range(2, 7)}
