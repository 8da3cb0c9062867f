import pytest
import torch

from dfkd.models import NLGenerator
from dfkd.models.nayer import NoisyLinear


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [16, 28, 32, 64])
def test_images_have_the_asked_size_and_lie_in_the_unit_interval(side, channels, random):
    generator = NLGenerator((channels, side, side), classes=4, embedding=6, noise=8, width=4).to(random.device)
    generator.redraw(10, random)
    images = generator(torch.eye(6)[torch.arange(10) % 4])
    assert images.shape == (10, channels, side, side)
    assert images.min() >= 0 and images.max() <= 1


def test_every_group_of_rows_goes_through_a_noisy_layer_of_its_own(random):
    layer = NoisyLinear(3, 5, rows=2).to(random.device)
    layer.redraw(3, random)
    with torch.no_grad():
        layer.bias.copy_(torch.arange(15.0).view(3, 5))
    x = torch.randn(7, 3, generator=random)  # a fourth group begins with the first layer again
    expected = torch.stack([x[i] @ layer.weight[(i // 2) % 3] + layer.bias[(i // 2) % 3] for i in range(7)])
    assert torch.allclose(layer(x), expected, atol=1e-6)


def test_redrawn_layers_are_standard_normal_without_bias_and_a_matter_of_the_stream():
    layer = NoisyLinear(40, 50, rows=4)
    with torch.no_grad():
        layer.bias.add_(1.0)
    before = torch.get_rng_state()
    layer.redraw(3, torch.Generator().manual_seed(1))
    assert torch.equal(torch.get_rng_state(), before)
    assert layer.weight.shape == (3, 40, 50) and layer.bias.abs().sum() == 0
    assert layer.weight.mean().item() == pytest.approx(0, abs=0.05)
    assert layer.weight.std().item() == pytest.approx(1, abs=0.05)
    first = layer.weight.detach().clone()
    layer.redraw(3, torch.Generator().manual_seed(1))
    assert torch.equal(first, layer.weight)


def test_the_gradient_of_a_layer_is_no_larger_than_the_layer(random):
    """An index into all layers has a gradient of their whole size, which took three quarters of NAYER's time."""
    layer = NoisyLinear(3, 5, rows=2).to(random.device)
    layer.redraw(4, random)
    nodes, seen = [layer(torch.randn(8, 3, generator=random)).grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is not None and node not in seen:
            seen.add(node)
            nodes += [before for before, _ in node.next_functions]
    assert {"UnbindBackward0"} <= {node.name() for node in seen} and "SelectBackward0" not in {n.name() for n in seen}


def test_the_same_class_gives_other_images_in_another_group(random):
    generator = NLGenerator((1, 16, 16), classes=2, embedding=4, noise=8, width=4).to(random.device)
    generator.redraw(4, random)
    images = generator(torch.eye(4)[torch.tensor([0, 1, 0, 1])])
    assert not torch.allclose(images[0], images[2], atol=1e-3)
    assert not torch.allclose(images[0], images[1], atol=1e-3)


def test_gradients_reach_every_parameter(random):
    generator = NLGenerator((1, 16, 16), classes=4, embedding=6, noise=8, width=4).to(random.device)
    generator.redraw(8, random)
    noise = torch.randn(8, 1, 16, 16, generator=random)
    (generator(torch.eye(6)[torch.arange(8) % 4]) * noise).sum().backward()
    quiet = [name for name, p in generator.named_parameters() if p.grad is None or p.grad.abs().sum() == 0]
    assert quiet == []


def test_the_public_codes_noisy_layer_has_its_size(random):
    generator = NLGenerator((3, 32, 32), classes=10).to(random.device)
    generator.redraw(400, random)
    assert generator.noisy.weight.shape == (40, 512, 1000) and generator.latent == 512


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"shape": (1, 30, 30)}, "divisible by 4, not 30x30"),
        ({"embedding": 0}, "embedding >= 1.*0"),
        ({"noise": 0}, "noise >= 1"),
        ({"width": 1}, "width >= 2"),
    ],
)
def test_impossible_generators_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        NLGenerator(**({"shape": (1, 16, 16), "classes": 4} | options))
