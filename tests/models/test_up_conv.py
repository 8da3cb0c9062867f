import pytest
import torch
import torch.nn.functional as F

from dfkd.models.up_conv import UpConv2d


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("size", [(4, 4), (3, 5), (1, 1)])
def test_it_is_the_convolution_of_the_enlarged_map(size, bias, random):
    torch.manual_seed(0)
    layer = UpConv2d(3, 4, bias).double()
    h = torch.randn(2, 3, *size, generator=random, dtype=torch.float64).requires_grad_()
    fast = layer(h)
    slow = F.conv2d(F.interpolate(h, scale_factor=2, mode="nearest"), layer.weight, layer.bias, padding=1)
    with torch.no_grad():
        assert torch.allclose(layer(h), slow, atol=1e-12)
    assert fast.shape == (2, 4, 2 * size[0], 2 * size[1])
    assert torch.allclose(fast, slow, atol=1e-12)
    to, parts = torch.randn(slow.shape, generator=random, dtype=torch.float64), [h, *layer.parameters()]
    ours, theirs = (torch.autograd.grad((y * to).sum(), parts) for y in (fast, slow))
    assert len(parts) == 2 + bias
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, atol=1e-12)


def test_many_channels_are_convolved_alike_with_and_without_gradients(random):
    layer, h = UpConv2d(40, 3), torch.randn(2, 40, 4, 4, generator=random)
    with torch.no_grad():
        assert torch.allclose(layer(h), layer(h.requires_grad_()).detach())


@pytest.mark.cpu("asks for the CPU's autocast")
def test_its_kernel_is_summed_in_float32_whatever_the_precision(random):
    layer, h = UpConv2d(3, 4), torch.randn(8, 3, 6, 6, generator=random)
    with torch.autocast("cpu", torch.bfloat16):
        fast = layer(h)
    slow = F.conv2d(F.interpolate(h, scale_factor=2), layer.weight, layer.bias, padding=1)
    assert fast.dtype == torch.bfloat16
    assert (fast.float() - slow).abs().max() < 0.02 * slow.abs().max()
