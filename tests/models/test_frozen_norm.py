import pytest
import torch
from torch import nn

from dfkd.models.frozen_norm import moments, normalize

LAYOUTS = (torch.contiguous_format, torch.channels_last)


def exactly(h: torch.Tensor, sets: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The definition, in float64: (mean, var)."""
    rows = h.double().view(sets, len(h) // sets, h.shape[1], -1)
    return rows.mean((1, 3)), rows.var((1, 3), correction=0)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("sets", [1, 3])
def test_values_and_gradients_are_those_of_the_definition(layout, sets, random):
    h = (2 * torch.randn(6, 4, 5, 5, generator=random) + 3).contiguous(memory_format=layout).requires_grad_()
    to = torch.randn(2, sets, 4, generator=random)
    fast, slow = moments(h, sets), exactly(h.contiguous(), sets)
    for a, b in zip(fast, slow, strict=True):
        assert a.shape == (sets, 4) and torch.allclose(a.double(), b, rtol=1e-5)
    ours, theirs = (torch.autograd.grad((pair[0] * to[0] + pair[1] * to[1]).sum(), h)[0] for pair in (fast, slow))
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_bfloat16_map_has_float32_statistics(layout, random):
    h = torch.randn(64, 3, 8, 8, generator=random).bfloat16().contiguous(memory_format=layout).requires_grad_()
    fast = moments(h)
    for a, b in zip(fast, exactly(h.detach().contiguous(), 1), strict=True):
        assert a.dtype == torch.float32 and torch.allclose(a.double(), b, atol=1e-5)
    gradient = torch.autograd.grad(fast[1].sum(), h)[0]
    assert gradient.dtype == torch.bfloat16 and gradient.abs().sum() > 0


def test_a_constant_channel_has_variance_0_and_a_finite_gradient():
    h = torch.full((4, 2, 3, 3), 7.0, requires_grad=True)
    mean, var = moments(h)
    assert torch.equal(mean, torch.full((1, 2), 7.0)) and (var < 1e-20).all()
    assert torch.autograd.grad(var.sum() + mean.sum(), h)[0].isfinite().all()


@pytest.mark.parametrize("sets", [1, 2])
def test_first_and_second_derivatives(sets, random):
    h = torch.randn(4, 2, 3, 3, generator=random, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: moments(x, sets), h)
    assert torch.autograd.gradgradcheck(lambda x: moments(x, sets), h)


def used(channels: int, random: torch.Generator, affine: bool = True, flat: bool = False) -> nn.Module:
    """A BatchNorm layer in evaluation mode with numbers of its own."""
    layer = (nn.BatchNorm1d if flat else nn.BatchNorm2d)(channels, affine=affine)
    layer.running_mean.normal_(generator=random)
    for tensor in (layer.running_var, *([layer.weight.data, layer.bias.data] if affine else [])):
        tensor.uniform_(0.5, 2.0, generator=random)
    return layer.eval()


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layer_and_its_gradient(layout, affine, flat, random):
    layer = used(3, random, affine, flat).double()
    h = torch.randn((7, 3) if flat else (7, 3, 4, 5), generator=random, dtype=torch.float64)
    h = (h if flat else h.contiguous(memory_format=layout)).requires_grad_()
    to = torch.empty_like(h).normal_(generator=random)
    fast, slow = normalize(layer, h), layer(h)
    assert torch.equal(fast, slow)
    ours, theirs = (torch.autograd.grad((y * to).sum(), h)[0] for y in (fast, slow))
    assert torch.allclose(ours, theirs, rtol=1e-12) and ours.stride() == h.stride()
    assert torch.autograd.gradcheck(lambda x: normalize(layer, x), h)
    assert torch.autograd.gradgradcheck(lambda x: normalize(layer, x), h)


def test_a_layer_keeps_the_precision_of_its_map_and_takes_no_gradient(random):
    layer = used(3, random)
    h = torch.randn(8, 3, 6, 6, generator=random).bfloat16().requires_grad_()
    fast, slow = normalize(layer, h), layer(h)
    assert fast.dtype == torch.bfloat16 and torch.equal(fast, slow)
    ours, theirs = (torch.autograd.grad(y.float().square().sum(), h, retain_graph=True)[0] for y in (fast, slow))
    assert ours.dtype == torch.bfloat16 and torch.allclose(ours, theirs, rtol=1e-2)
    fast.float().sum().backward()
    assert layer.weight.grad is None and layer.bias.grad is None and h.grad is not None
