"""A convolution of an enlarged map, without enlarging it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEW = 32  # channels: with less, and no gradient to gain on, a CPU enlarges a map sooner


class UpConv2d(nn.Conv2d):
    """A 3x3 convolution, padded by 1, of a map whose every pixel became 2x2 (nearest neighbour).

    Each pixel of the larger map sees at most 2x2 different ones of the smaller: it is a transposed convolution with
    stride 2, whose 4x4 kernel is the 3x3 one convolved with 2x2 ones. That takes 4 products a pixel instead of 9, and
    no larger map in between.

    Args:
        inputs, outputs: channels.
        bias: whether there is one.
    """

    def __init__(self, inputs: int, outputs: int, bias: bool = True):
        super().__init__(inputs, outputs, 3, padding=1, bias=bias)

    def forward(self, h: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, 2H, 2W)."""
        if self.in_channels < FEW and not torch.is_grad_enabled():
            return super().forward(F.interpolate(h, scale_factor=2.0))
        kernel = self.weight.flip(2, 3)  # a transposed convolution turns its kernel round
        kernel = F.pad(kernel, (0, 0, 0, 1)) + F.pad(kernel, (0, 0, 1, 0))
        kernel = F.pad(kernel, (0, 1)) + F.pad(kernel, (1, 0))
        return F.conv_transpose2d(h, kernel.transpose(0, 1), self.bias, stride=2, padding=1)
