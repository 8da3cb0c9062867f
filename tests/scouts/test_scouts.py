"""Scouts: images of every kind, in range, with the statistics that they promise."""

import math

import pytest
import torch

from dfkd.scouts import Colours, Mixture, Shapes, SpectralNoise

SHAPE = (3, 16, 16)
KINDS = {
    "noise": SpectralNoise(SHAPE),
    "colours": Colours(SHAPE),
    "shapes": Shapes(SHAPE),
    "mixture": Mixture(SHAPE, {"noise": SpectralNoise(SHAPE), "colours": Colours(SHAPE), "none": None}),
}


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", KINDS)
def test_images_are_in_range_differ_and_depend_on_the_generator_alone(name):
    images = KINDS[name].draw(21, stream())
    assert images.shape == (21, *SHAPE) and images.dtype == torch.float32 and images.is_contiguous()
    assert images.min() >= 0 and images.max() <= 1 and images.std() > 0.1
    assert len({tuple(image.flatten().tolist()) for image in images}) == 21
    assert torch.equal(images, KINDS[name].draw(21, stream())) and not torch.equal(
        images, KINDS[name].draw(21, stream(1))
    )


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 5, 9), (2, 1, 1)])
def test_any_shape(name, shape):
    kind = KINDS[name]
    small = Mixture(shape, {"noise": SpectralNoise(shape)}) if name == "mixture" else type(kind)(shape)
    images = small.draw(4, stream())
    assert images.shape == (4, *shape) and images.isfinite().all()


@pytest.mark.parametrize("slope", [0.0, 1.0, 2.0])
def test_the_amplitude_falls_with_the_frequency_as_promised(slope):
    noise = SpectralNoise((1, 64, 64), (slope, slope), (0.5, 0.5), (0.05, 0.05)).draw(50, stream())
    power = torch.fft.rfft2(noise[:, 0]).abs().square().mean(0)[0]  # along one axis
    low, high = power[4].log2(), power[16].log2()
    assert (low - high).item() == pytest.approx(2 * slope * math.log2(16 / 4), abs=0.8)


def test_half_of_the_images_are_grey():
    images = torch.cat([KINDS[name].draw(300, stream()) for name in ("noise", "colours")])
    grey = ((images - images[:, :1]).abs().amax((1, 2, 3)) < 1e-6).float().mean()
    assert 0.3 < grey < 0.6  # two colours are both grey less often


def test_a_mixture_has_equally_many_of_each():
    mixture = Mixture(SHAPE, {"a": Colours(SHAPE), "b": SpectralNoise(SHAPE, (0, 0), (0.5, 0.5), (0.0, 0.0))})
    plain = (mixture.draw(11, stream()) == 0.5).all(3).all(2).all(1)
    assert plain.tolist() == [False] * 6 + [True] * 5


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: SpectralNoise(SHAPE, slopes=(2, 1)), "slopes"),
        (lambda: SpectralNoise(SHAPE, contrast=(-1, 1)), "contrast"),
        (lambda: Shapes(SHAPE, most=0), "most"),
        (lambda: Mixture(SHAPE, {"a": None}), "at least one"),
    ],
)
def test_impossible_options_are_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()
