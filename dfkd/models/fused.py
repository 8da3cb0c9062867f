"""Frozen convolutions as a GPU computes them fast.

`ConvReLU` has what follows a convolution in one kernel: bias, the sum with a residual, and ReLU. On a GPU these are
passes over whole feature maps, which take as long as the convolution. cuDNN's fused kernels know no gradient; that of
the inputs is a masked gradient through the convolution. `FromPixels` is a convolution on the few channels of images.
"""

import operator

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.autograd.function import once_differentiable

WIDTH = 8  # channels come in multiples of this, or cuDNN has no fast kernel
RELUS = (torch.relu, F.relu)


def fuse_activations(net: fx.GraphModule) -> fx.GraphModule:
    """Replace conv - ReLU and conv - sum - ReLU of a frozen network by `ConvReLU`, in place."""
    modules = dict(net.named_modules())

    def is_alone(node: object, kind: type) -> bool:
        called = isinstance(node, fx.Node) and node.op == "call_module" and len(node.users) == 1
        return called and type(modules[node.target]) is kind

    for node in list(net.graph.nodes):
        relu = node.op == "call_module" and type(modules[node.target]) is nn.ReLU
        if not node.args or not (relu or (node.op == "call_function" and node.target in RELUS)):
            continue
        before, residual = node.args[0], None
        if before.op == "call_function" and before.target in (operator.add, torch.add) and len(before.users) == 1:
            first, second = before.args
            before, residual = (first, second) if is_alone(first, nn.Conv2d) else (second, first)
            if not isinstance(residual, fx.Node):  # a number
                continue
        if not is_alone(before, nn.Conv2d) or not fits(modules[before.target]):
            continue
        name = before.target.replace(".", "_") + "_relu"
        net.add_submodule(name, ConvReLU(modules[before.target]))
        with net.graph.inserting_before(node):
            inputs = (*before.args, residual) if residual is not None else before.args
            node.replace_all_uses_with(net.graph.call_module(name, inputs))
        net.graph.erase_node(node)
    net.graph.eliminate_dead_code()
    net.graph.lint()
    net.recompile()
    return net


def widen_first(net: fx.GraphModule) -> fx.GraphModule:
    """Replace convolutions on fewer than WIDTH channels of a frozen network by `FromPixels`, in place; but for those of
    large strides, such as the patches of a transformer, in which no position is seen twice."""
    for name, module in list(net.named_modules()):
        if type(module) is nn.Conv2d and _is_plain(module) and module.in_channels < WIDTH and max(module.stride) <= 2:
            owner, _, own_name = name.rpartition(".")
            setattr(net.get_submodule(owner), own_name, FromPixels(module))
    return net


def fits(conv: nn.Conv2d) -> bool:
    """Return whether there is a fast fused kernel for a convolution."""
    has_bias = conv.bias is not None
    return _is_plain(conv) and has_bias and conv.in_channels % WIDTH == 0 and conv.out_channels % WIDTH == 0


def _is_plain(conv: nn.Conv2d) -> bool:
    return conv.groups == 1 and conv.padding_mode == "zeros" and isinstance(conv.padding, tuple)


def _in_bfloat16(x: Tensor) -> bool:
    """Return whether a tensor is on a GPU, and convolutions on it are computed in bfloat16."""
    cast = x.device.type == "cuda" and torch.is_autocast_enabled("cuda")
    return cast and torch.get_autocast_dtype("cuda") == torch.bfloat16


class ConvReLU(nn.Module):
    """relu(conv(x) + b), or relu(conv(x) + b + residual), of a frozen convolution: in one kernel under bfloat16
    autocast on a GPU, else as usual.

    Args:
        conv: for which `fits` holds.
    """

    def __init__(self, conv: nn.Conv2d):
        super().__init__()
        self.conv = conv
        # Autocast would round frozen weights anew in every pass.
        self.rounded = [part.detach().to(torch.bfloat16) for part in (conv.weight, conv.bias)]

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        whole = residual is None or residual.shape == self._size_of(x)  # cuDNN enlarges no residual
        if not (whole and self._in_one_kernel(x)):
            out = self.conv(x)
            return torch.relu(out if residual is None else out + residual)
        residual = residual if residual is None else residual.to(torch.bfloat16)
        form = self.conv.stride, self.conv.padding, self.conv.dilation
        return _Fused.apply(x.to(torch.bfloat16), *self.rounded, residual, *form)

    def _size_of(self, x: Tensor) -> tuple[int, ...]:
        """Return the shape of the convolution's output for inputs x."""
        conv = self.conv
        forms = zip(x.shape[2:], conv.kernel_size, conv.stride, conv.padding, conv.dilation, strict=True)
        sides = ((side + 2 * pad - hole * (kernel - 1) - 1) // step + 1 for side, kernel, step, pad, hole in forms)
        return (len(x), conv.out_channels, *sides)

    def _in_one_kernel(self, x: Tensor) -> bool:
        return _in_bfloat16(x)


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(context, x, weight, bias, residual, stride, padding, dilation):
        if residual is None:
            out = torch.cudnn_convolution_relu(x, weight, bias, stride, padding, dilation, 1)
        else:
            out = torch.cudnn_convolution_add_relu(x, weight, residual, 1.0, bias, stride, padding, dilation, 1)
        context.save_for_backward(x, weight, out)
        context.form, context.has_residual = (stride, padding, dilation), residual is not None
        return out

    @staticmethod
    @once_differentiable
    def backward(context, gradient):
        x, weight, out = context.saved_tensors
        gradient = torch.ops.aten.threshold_backward(gradient, out, 0)
        of_inputs = (True, False, False)
        form = (*context.form, False, (0, 0), 1, of_inputs)
        to_x = torch.ops.aten.convolution_backward(gradient, x, weight, None, *form)[0]
        return to_x, None, None, gradient if context.has_residual else None, None, None, None


class FromPixels(nn.Module):
    """A frozen convolution of images, with few channels. Under bfloat16 autocast on a GPU, the gradient for the images
    is that of a convolution on WIDTH channels whose further weights are zeros: cuDNN has no fast kernel for fewer (on
    an H100, 28 x 28 pixels of one channel, 1000 images: 0.10 ms in place of 0.27).

    Args:
        conv: one on fewer than WIDTH channels.
    """

    def __init__(self, conv: nn.Conv2d):
        super().__init__()
        self.conv = conv
        weight = conv.weight.detach().to(torch.bfloat16)
        wide = torch.cat([weight, weight.new_zeros(len(weight), WIDTH - conv.in_channels, *conv.kernel_size)], 1)
        self.wide = wide.contiguous(memory_format=torch.channels_last)
        self.rounded = [weight, None if conv.bias is None else conv.bias.detach().to(torch.bfloat16)]

    def forward(self, x: Tensor) -> Tensor:
        if not _in_bfloat16(x):
            return self.conv(x)
        form = self.conv.stride, self.conv.padding, self.conv.dilation
        return _Widened.apply(x.to(torch.bfloat16), *self.rounded, self.wide, *form)


class _Widened(torch.autograd.Function):
    @staticmethod
    def forward(context, x, weight, bias, wide, stride, padding, dilation):
        context.save_for_backward(wide)
        context.size, context.form = x.shape, (stride, padding, dilation)
        return F.conv2d(x, weight, bias, stride, padding, dilation)

    @staticmethod
    @once_differentiable
    def backward(context, gradient):
        (wide,), (count, channels, *sides) = context.saved_tensors, context.size
        # only its form matters
        x = torch.empty((count, WIDTH, *sides), dtype=wide.dtype, device=wide.device, memory_format=torch.channels_last)
        form = (*context.form, False, (0, 0), 1, (True, False, False))
        to_x = torch.ops.aten.convolution_backward(gradient, x, wide, None, *form)[0]
        return to_x[:, :channels], None, None, None, None, None, None
