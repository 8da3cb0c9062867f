import itertools

import pytest
import torch

from dfkd.measures import CORRUPTIONS, CorruptedAccuracy
from dfkd.measures.base import chosen_images
from dfkd.measures.corrupted import corrupted_images
from dfkd.measures.corruptions import STRENGTHS, brightness, contrast, corrupt, gaussian_blur, pixelate
from dfkd.scenarios import none


@pytest.fixture
def colours(host_random) -> torch.Tensor:
    """Smooth colour images in [0, 1]."""
    coarse = torch.rand(8, 3, 4, 4, generator=host_random)
    return torch.nn.functional.interpolate(coarse, (16, 16), mode="bilinear")


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_a_corruption_grows_with_its_strength_and_stays_in_the_box(colours, kind):
    distances = []
    for strength in STRENGTHS:
        given = colours.clone()
        corrupted = corrupt(given, kind, strength, torch.Generator().manual_seed(0))
        assert corrupted.shape == colours.shape and corrupted.min() >= 0 and corrupted.max() <= 1
        assert torch.equal(given, colours)
        distances.append((corrupted - colours).square().mean().item())
    # Ten squares on sixteen pixels are further from the image than eight, whose borders lie between pixels.
    slack = 0.8 if kind == "pixelate" else 1
    assert all(weak > 0 and strong > slack * weak for weak, strong in itertools.pairwise(distances))


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_the_same_generator_gives_the_same_images(colours, kind):
    first, again = (corrupt(colours, kind, 3, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, again)


def test_noise_has_the_strength_that_it_says(host_random):
    grey = torch.full((20, 1, 32, 32), 0.5)
    assert corrupt(grey, "gaussian_noise", 1, host_random).std().item() == pytest.approx(0.08, rel=0.05)
    assert corrupt(grey, "shot_noise", 1, host_random).std().item() == pytest.approx((0.5 / 60) ** 0.5, rel=0.05)
    salted = corrupt(grey, "impulse_noise", 5, host_random)
    assert [(salted == value).float().mean().item() for value in (0, 1)] == pytest.approx([0.135] * 2, rel=0.1)


def test_a_blur_keeps_the_mean_and_is_a_gaussian(host_random):
    point = torch.zeros(1, 2, 33, 33)
    point[:, 0, 16, 16] = 1
    blurred = gaussian_blur(point, 2 / 33, host_random)
    assert blurred.sum().item() == pytest.approx(1, abs=1e-5) and blurred[:, 1].abs().max() == 0
    places = torch.arange(33.0) - 16
    deviation = (blurred[0, 0].sum(0) * places.square()).sum().sqrt().item()
    assert deviation == pytest.approx(2, rel=0.02)


def test_brightness_is_the_value_of_hsv(colours, host_random):
    import colorsys

    brighter = brightness(colours, 0.2, host_random).clamp(0, 1)
    for before, after in zip(colours[:, :, 3, 5].tolist(), brighter[:, :, 3, 5].tolist(), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*before)
        assert after == pytest.approx(colorsys.hsv_to_rgb(hue, saturation, min(1, value + 0.2)), abs=1e-5)
    assert brightness(torch.zeros(1, 3, 2, 2), 0.2, host_random).unique().tolist() == pytest.approx([0.2])


def test_contrast_and_pixelation_keep_the_mean(colours, host_random):
    flat = contrast(colours, 0.1, host_random)
    assert torch.allclose(flat.mean((2, 3)), colours.mean((2, 3)), atol=1e-6)
    assert torch.allclose(flat.std((2, 3)), 0.1 * colours.std((2, 3)), atol=1e-6)
    coarse = pixelate(colours, 0.25, host_random)
    assert torch.equal(coarse[:, :, ::4, ::4], coarse[:, :, 3::4, 3::4])
    assert torch.allclose(coarse.mean((2, 3)), colours.mean((2, 3)), atol=1e-6)


def test_accuracy_is_the_mean_over_kinds_and_strengths(exam):
    images, hits = chosen_images(exam.id.images, 100), []
    for kind in ("contrast", "gaussian_noise"):
        for strength in (1, 5):
            shown = corrupted_images(images, kind, strength)
            hits.append((exam.model.predict(shown.x).argmax(1).cpu() == images.y).float().mean().item())
    measure = CorruptedAccuracy(["contrast", "gaussian_noise"], [1, 5], images=100)
    assert measure(exam) == measure(exam) == pytest.approx(100 * sum(hits) / 4)


def test_strong_corruptions_cost_more_than_weak_ones(exam):
    weak, strong = (CorruptedAccuracy(strengths=[s])(exam) for s in (1, 5))
    assert 95 > weak > strong + 10 > 20


@pytest.mark.parametrize("wrong", [{"kinds": ["fog"]}, {"kinds": []}, {"strengths": [6]}, {"images": 0}])
def test_impossible_options_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        CorruptedAccuracy(**wrong)


def test_points_cannot_be_corrupted(plane):
    with pytest.raises(ValueError, match="only images can be corrupted, and 'plane' is a domain of points"):
        CorruptedAccuracy().check(none(plane))
