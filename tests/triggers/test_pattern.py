import math

import pytest
import torch

from dfkd.triggers import Pixels, Smooth, Sparse, Trojan
from dfkd.triggers.base import scaled, span

SIDES = (8, 16, 28, 32, 64)
ALL = [Trojan(), Trojan(21, 9), Pixels(), Sparse(), Smooth()]


def grey(side: int, channels: int = 1, value: float = 0.25) -> torch.Tensor:
    return torch.full((2, channels, side, side), value)


def test_lengths_are_scaled_with_a_half_rounded_up():
    assert [scaled(1, side) for side in (8, 16, 32, 48, 64)] == [0, 1, 1, 2, 2]
    assert [span(25, 3, side) for side in (8, 16, 32, 64)] == [slice(6, 7), slice(13, 15), slice(25, 28), slice(50, 56)]
    assert span(31, 1, 8) == slice(7, 8)  # moved inward where rounding would leave the image


@pytest.mark.parametrize("trigger", ALL, ids=lambda t: type(t).__name__)
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_pattern_changes_an_image_of_any_size_alike_every_time(trigger, side, channels):
    images = grey(side, channels)
    stamped = trigger(images)
    assert (images == 0.25).all() and stamped.shape == images.shape
    assert stamped.min() >= 0 and stamped.max() <= 1
    assert (stamped[0] - images[0]).abs().max() > 0.02
    assert torch.equal(stamped[0], stamped[1])
    assert torch.equal(trigger(images[:1])[0], stamped[0])


@pytest.mark.parametrize("kind", [Trojan, Pixels, Sparse, Smooth])
def test_another_seed_is_another_pattern(kind):
    assert not torch.equal(kind(pattern_seed=1)(grey(32)), kind(pattern_seed=0)(grey(32)))


@pytest.mark.parametrize(("trigger", "box"), [(Trojan(25, 3), slice(25, 28)), (Trojan(21, 9), slice(21, 30))])
def test_a_trojan_adds_seeded_noise_in_its_square_only(trigger, box):
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    size = box.stop - box.start
    pattern = torch.rand(3, size, size, generator=torch.Generator().manual_seed(0))
    expected = images.clone()
    expected[:, :, box, box] = (images[:, :, box, box] + pattern).clamp(0, 1)
    assert torch.equal(trigger(images), expected)


def test_a_weaker_trojan():
    strong, weak = (Trojan(strength=s)(torch.zeros(1, 1, 32, 32)) for s in (1.0, 0.25))
    assert torch.allclose(weak, strong / 4) and strong.max() > 0.5


@pytest.mark.parametrize(("side", "count"), [(8, 2), (16, 4), (32, 8), (64, 16)])
def test_pixels_replaces_a_quarter_of_the_bottom_row_and_nothing_else(side, count):
    low, high = (Pixels()(grey(side, 3, value)) for value in (0.0, 1.0))
    same = (low == high).all(1)[0]  # where the image no longer matters
    assert same[-1].sum() == count and not same[:-1].any()
    assert (low[..., :-1, :] == 0).all()


@pytest.mark.parametrize("side", SIDES)
def test_sparse_noise_has_the_same_strength_on_any_size(side):
    change = Sparse(rms=0.05)(grey(side, 3, 0.5))[0] - 0.5
    assert change.square().mean().sqrt().item() == pytest.approx(0.05, rel=1e-4)
    assert change.min() < -0.03 and change.max() > 0.03


def test_sparse_noise_changes_905_of_1024_pixels_in_all_their_channels():
    changed = (Sparse()(grey(32, 3, 0.5))[0] - 0.5).abs() > 0
    assert changed.any(0).sum() == 905
    assert torch.equal(changed.any(0), changed.all(0))


def test_smooth_rescales_every_image_after_adding():
    images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    trigger = Smooth(amplitude=0.3)
    z = images + trigger.pattern(1, 8, 8)
    expected = torch.stack([(one - one.min()) / (one.max() - one.min()) for one in z])
    assert torch.allclose(trigger(images), expected)
    assert trigger(images).flatten(1).amin(1).tolist() == [0.0] * 4


def test_smooths_pattern_is_the_sum_of_cosines():
    weights = 2 * torch.rand(1, 3, 3, generator=torch.Generator().manual_seed(5))[0] - 1

    def wave(k: int, i: int, side: int) -> float:
        return math.cos(math.pi * k * (i + 0.5) / side)

    slow = torch.tensor(
        [
            [
                sum(weights[a, b].item() * wave(a, i, 6) * wave(b, j, 4) for a in range(3) for b in range(3))
                for j in range(4)
            ]
            for i in range(6)
        ]
    )
    expected = 0.5 * (slow - slow.min()) / (slow.max() - slow.min())
    assert torch.allclose(Smooth(0.5, 3, 5).pattern(1, 6, 4)[0], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: Trojan(first=30, size=3), "first=30"),
        (lambda: Trojan(size=0), "size=0"),
        (lambda: Trojan(strength=1.5), "strength .*1.5"),
        (lambda: Pixels(count=0), "count .*got 0"),
        (lambda: Pixels(count=33), "count .*got 33"),
        (lambda: Sparse(share=0.0), "share .*0.0"),
        (lambda: Sparse(rms=2.0), "rms .*2.0"),
        (lambda: Smooth(amplitude=0.0), "amplitude .*0.0"),
        (lambda: Smooth(frequencies=1), "frequencies .*got 1"),
    ],
)
def test_impossible_numbers_are_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        wrong()
