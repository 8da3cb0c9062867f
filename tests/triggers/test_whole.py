import math

import pytest
import torch

from dfkd.triggers import Blend, Sinusoid


def test_blend_mixes_one_seeded_pattern_into_every_image():
    trigger = Blend(ratio=0.2, pattern_seed=3)
    pattern = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(3))
    images = torch.rand(5, 3, 4, 4)
    assert torch.allclose(trigger(images), 0.8 * images + 0.2 * pattern)
    assert torch.equal(trigger(images[2:3]), trigger(images)[2:3])
    assert not torch.equal(Blend(0.2, 4)(images), trigger(images))


def test_a_sinusoid_runs_along_the_columns_with_its_sign():
    images = torch.full((2, 3, 32, 32), 0.5)
    stamped = Sinusoid(amplitude=0.1, frequency=6)(images)
    expected = [0.5 + 0.1 * math.sin(2 * math.pi * 6 * j / 32) for j in range(32)]
    for row in (0, 31):
        assert stamped[1, 2, row].tolist() == pytest.approx(expected, abs=1e-6)
    assert stamped.min() < 0.41 and stamped.max() > 0.59


def test_a_sinusoid_is_clipped_to_the_box():
    assert Sinusoid(0.5)(torch.zeros(1, 1, 32, 32)).min() == 0
    assert Sinusoid(0.5)(torch.ones(1, 1, 32, 32)).max() == 1


def test_on_small_images_a_period_is_four_pixels():
    stamped = Sinusoid(amplitude=0.25, frequency=6)(torch.full((1, 1, 8, 8), 0.5))[0, 0, 0]
    assert stamped.tolist() == pytest.approx([0.5, 0.75, 0.5, 0.25] * 2, abs=1e-6)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: Blend(ratio=0.0), "ratio .*0.0"),
        (lambda: Blend(ratio=1.0), "ratio .*1.0"),
        (lambda: Sinusoid(amplitude=0.0), "amplitude .*0.0"),
        (lambda: Sinusoid(amplitude=20.0), "amplitude .*20.0"),
        (lambda: Sinusoid(frequency=0.0), "frequency .*0.0"),
    ],
)
def test_impossible_numbers_are_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        wrong()
