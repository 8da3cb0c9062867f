import pytest
import torch
from omegaconf import OmegaConf
from runner import composed

from dfkd.config.build import Builder
from dfkd.models import DCGAN, MLPGenerator


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 16, 20)])
def test_images_have_the_asked_size_and_lie_in_the_unit_interval(shape, random):
    generator = DCGAN(shape, latent=8, width=8)
    images = generator(5 * torch.randn(6, 8, generator=random))
    assert images.shape == (6, *shape)
    assert images.min() >= 0 and images.max() <= 1
    assert not torch.allclose(images[0], images[1])


def test_the_benchmarks_generator_has_its_parameter_count():
    c = 128
    expected = (256 + 1) * c * 64 + 2 * c + 9 * c * c + 2 * c + 9 * c * 64 + 2 * 64 + 9 * 64 * 3 + 3
    count = sum(p.numel() for p in DCGAN((3, 32, 32)).parameters())
    assert count == expected
    assert round(count / 1e6, 2) == 2.33


def test_the_benchmarks_large_generator_has_its_parameter_count():
    node = OmegaConf.to_container(composed("generator@synthesizer.generator=large").synthesizer.generator)
    builder = Builder(shape=(3, 32, 32), classes=10)
    count = sum(p.numel() for p in builder.build(node, "generator").parameters())
    expected = (256 + 1) * 256 * 64 + 2 * 256 + 9 * 256 * 128 + 2 * 128 + 9 * 128 * 64 + 2 * 64 + 9 * 64 * 3 + 3
    assert count == expected
    assert round(count / 1e6, 2) == 4.58


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": (1, 30, 30)}, "divisible by 4, not 30x30"),
        ({"shape": (1, 32, 30)}, "divisible by 4"),
        ({"shape": (1, 8, 8), "latent": 0}, "latent"),
        ({"shape": (1, 8, 8), "width": 1}, "width"),
        ({"shape": (1, 8, 8), "start": 0}, "start"),
    ],
)
def test_impossible_generators_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DCGAN(**options)


def test_the_generator_of_points_is_layers_of_relu_and_a_linear_one(random):
    generator = MLPGenerator((1, 2, 1), latent=5, hidden=4, layers=2)
    assert [type(layer).__name__ for layer in generator.paint[:5]] == ["Linear", "ReLU", "Linear", "ReLU", "Linear"]
    assert sum(p.numel() for p in generator.parameters()) == (5 + 1) * 4 + (4 + 1) * 4 + (4 + 1) * 2
    points = generator(100 * torch.randn(6, 5, generator=random))
    assert points.shape == (6, 1, 2, 1) and points.min() < 0 and points.abs().max() > 1  # no range


def test_the_same_layers_make_images_where_there_is_a_range(random):
    images = MLPGenerator((3, 8, 8), latent=5, box=(0.0, 1.0))(100 * torch.randn(6, 5, generator=random))
    assert images.shape == (6, 3, 8, 8) and images.min() >= 0 and images.max() <= 1


@pytest.mark.parametrize("name", ["latent", "hidden", "layers"])
def test_an_mlp_generator_of_nothing_is_refused(name):
    with pytest.raises(ValueError, match=f"{name}.*0"):
        MLPGenerator((1, 2, 1), **{name: 0})
