"""Frozen convolutions with what follows them in one kernel: bias, the sum with a residual, and ReLU.

On a GPU these are passes over whole feature maps, which take as long as the convolution. cuDNN's fused kernels know no
gradient; that of the inputs is a masked gradient through the convolution.
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


def fits(conv: nn.Conv2d) -> bool:
    """Return whether there is a fast fused kernel for a convolution."""
    plain = conv.groups == 1 and conv.padding_mode == "zeros" and isinstance(conv.padding, tuple)
    return plain and conv.bias is not None and conv.in_channels % WIDTH == 0 and conv.out_channels % WIDTH == 0


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
        cast = x.device.type == "cuda" and torch.is_autocast_enabled("cuda")
        return cast and torch.get_autocast_dtype("cuda") == torch.bfloat16


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
