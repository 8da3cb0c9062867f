"""Frozen convolutions with their activation in one kernel, with cuDNN's kernel replaced by its formula on a CPU."""

import pytest
import torch
import torch.nn.functional as F
from models.test_folded import NETWORKS, SHAPE, gradient, used
from torch import nn

from dfkd.models import fused
from dfkd.models.folded import fold_batch_norms
from dfkd.models.fused import ConvReLU, FromPixels, fits, fuse_activations, widen_first


def conv_relu(x, weight, bias, stride, padding, dilation, groups):
    return F.conv2d(x, weight, bias, stride, padding, dilation, groups).relu()


def conv_add_relu(x, weight, residual, factor, bias, stride, padding, dilation, groups):
    return (F.conv2d(x, weight, bias, stride, padding, dilation, groups) + factor * residual).relu()


@pytest.fixture
def one_kernel(monkeypatch):
    """As on a GPU under autocast, but in float64, so that the formulas can be compared."""
    monkeypatch.setattr(torch, "cudnn_convolution_relu", conv_relu)
    monkeypatch.setattr(torch, "cudnn_convolution_add_relu", conv_add_relu)
    monkeypatch.setattr(ConvReLU, "_in_one_kernel", lambda self, x: True)
    monkeypatch.setattr(torch, "bfloat16", torch.float64)


@pytest.mark.cpu("the kernel of a GPU is replaced")
@pytest.mark.parametrize("name", NETWORKS)
def test_answers_and_gradients_are_those_of_the_folded_network(name, random, one_kernel):
    torch.manual_seed(0)
    net = used(NETWORKS[name](SHAPE, 5), random).double()
    x = torch.randn(4, *SHAPE, generator=random, dtype=torch.float64)
    folded, fast = fold_batch_norms(net, SHAPE), fuse_activations(fold_batch_norms(net, SHAPE))
    assert sum(isinstance(module, ConvReLU) for module in fast.modules()) > 1
    assert torch.allclose(fast(x), folded(x), rtol=1e-9, atol=1e-9)
    assert torch.allclose(gradient(fast, x), gradient(folded, x), rtol=1e-9, atol=1e-12)


def test_in_a_resnet_every_convolution_with_an_activation_is_fused(random):
    folded = fold_batch_norms(used(NETWORKS["resnet18"](SHAPE, 5), random), SHAPE)
    convolutions = sum(isinstance(module, nn.Conv2d) for module in folded.modules())
    kinds = [type(module) for module in fuse_activations(folded).modules()]
    assert convolutions == 12 and kinds.count(ConvReLU) == 8  # without the one of 3 channels and three shortcuts


def test_without_the_kernel_it_is_the_same_to_the_bit(random):
    folded = fold_batch_norms(used(NETWORKS["resnet18"](SHAPE, 5), random), SHAPE)
    x = torch.randn(4, *SHAPE, generator=random)
    expected = folded(x)
    assert torch.equal(fuse_activations(folded)(x), expected)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(3, 8, 3),
        nn.Conv2d(8, 8, 3, bias=False),
        nn.Conv2d(8, 8, 3, groups=2),
        nn.Conv2d(8, 8, 3, padding="same"),
        nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"),
    ],
)
def test_what_cudnn_does_not_fuse_fast_stays_as_it_is(conv):
    assert not fits(conv) and fits(nn.Conv2d(8, 16, 3, 2, 1)) and fused.WIDTH == 8


@pytest.mark.cpu("a GPU would compute in bfloat16")
@pytest.mark.parametrize(
    "conv", [nn.Conv2d(1, 6, 3), nn.Conv2d(3, 5, (3, 2), stride=2, padding=1, dilation=2, bias=False)]
)
def test_a_convolution_of_images_has_the_gradient_of_a_wider_one(conv, random, monkeypatch):
    monkeypatch.setattr(fused, "_in_bfloat16", lambda x: True)
    monkeypatch.setattr(torch, "bfloat16", torch.float64)
    net = torch.fx.symbolic_trace(nn.Sequential(conv.double().requires_grad_(False)))
    x = torch.randn(4, conv.in_channels, 9, 8, generator=random, dtype=torch.float64)
    expected = net(x), gradient(net, x)
    wide = widen_first(net)
    assert isinstance(wide.get_submodule("0"), FromPixels) and wide.get_submodule("0").wide.shape[1] == fused.WIDTH
    assert torch.allclose(wide(x), expected[0]) and torch.allclose(gradient(wide, x), expected[1])


def test_only_convolutions_of_images_are_widened(random):
    layers = nn.Conv2d(3, 8, 4, stride=4), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 1, groups=4)
    net = widen_first(torch.fx.symbolic_trace(nn.Sequential(*layers)))
    assert not any(isinstance(module, FromPixels) for module in net.modules())
    one = torch.fx.symbolic_trace(nn.Sequential(nn.Conv2d(3, 8, 3)))
    x = torch.rand(2, 3, 8, 8, generator=random)
    expected = one(x)
    assert torch.equal(widen_first(one)(x), expected)  # in float32 it is as before


class Watched(nn.Module):
    """A convolution whose result is also used without the activation."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x):
        out = self.conv(x)
        return torch.relu(out) + out


def test_a_result_that_is_used_elsewhere_is_not_fused():
    net = torch.fx.symbolic_trace(Watched())
    assert not any(isinstance(module, ConvReLU) for module in fuse_activations(net).modules())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="cuDNN's kernel needs a GPU")
@pytest.mark.parametrize("with_residual", [False, True])
def test_the_kernel_of_a_gpu_computes_the_formula(with_residual):
    torch.manual_seed(0)
    layer = ConvReLU(nn.Conv2d(16, 32, 3, 1, 1).cuda().requires_grad_(False))
    x = torch.randn(8, 16, 8, 8).cuda().to(memory_format=torch.channels_last).requires_grad_()
    residual = torch.randn(8, 32, 8, 8).cuda().requires_grad_() if with_residual else None
    inputs, exact = [x] if residual is None else [x, residual], layer.conv.double()
    with torch.autocast("cuda", torch.bfloat16):
        out = layer(*inputs)
    wide = [part.detach().double().requires_grad_() for part in inputs]
    expected = F.conv2d(wide[0], exact.weight, exact.bias, 1, 1) + (wide[1] if with_residual else 0)
    mask = (out > 0).double()  # a number near 0 may lie on the other side
    pairs = [(out, expected.relu())]
    gradients = torch.autograd.grad(out.float().sum(), inputs), torch.autograd.grad((expected * mask).sum(), wide)
    for one, other in [*pairs, *zip(*gradients, strict=True)]:
        assert (one.double() - other).norm() < 0.01 * other.norm()


class Added(nn.Module):
    """Adds something to a convolution that is no map of its size."""

    def __init__(self, more):
        super().__init__()
        self.conv, self.more = nn.Conv2d(8, 8, 3, 2, 1).double(), more

    def forward(self, x):
        return torch.relu(self.conv(x) + (0.5 if self.more == "a number" else x.mean((2, 3), keepdim=True)))


@pytest.mark.cpu("the kernel of a GPU is replaced")
@pytest.mark.parametrize("more", ["a number", "a map of one position"])
def test_what_cudnn_cannot_add_is_added_as_usual(more, one_kernel, monkeypatch):
    def refuse(*_):
        raise AssertionError("cuDNN adds maps of equal size only")

    monkeypatch.setattr(torch, "cudnn_convolution_add_relu", refuse)
    net, x = Added(more), torch.randn(2, 8, 7, 7, dtype=torch.float64)
    assert torch.equal(fuse_activations(torch.fx.symbolic_trace(net))(x), net(x))
