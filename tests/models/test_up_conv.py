import pytest
import torch
import torch.nn.functional as F

from dfkd.models import up_conv
from dfkd.models.up_conv import UpConv2d, upsamples_first


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


def test_a_gpu_upsamples_first_and_a_cpu_where_that_is_faster():
    cpu, gpu = torch.device("cpu"), torch.device("cuda", 0)
    assert upsamples_first(gpu, 40, True) and upsamples_first(gpu, 3, False)
    assert upsamples_first(cpu, 3, False)
    assert not upsamples_first(cpu, 3, True) and not upsamples_first(cpu, 40, False)


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_both_ways_give_the_same_map(kind, monkeypatch, random):
    monkeypatch.setattr(up_conv, "upsamples_first", lambda *_: upsamples_first(torch.device(kind), 3, True))
    layer, h = UpConv2d(3, 4).to(random.device), torch.randn(2, 3, 5, 4, generator=random)
    slow = F.conv2d(F.interpolate(h, scale_factor=2), layer.weight, layer.bias, padding=1)
    assert torch.allclose(layer(h), slow, atol=1e-5)


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
