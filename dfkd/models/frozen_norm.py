"""BatchNorm in evaluation mode, and the mean and variance of its input, with faster gradients than torch's.

torch's gradient of the layer also sums over the map for the gradients of its parameters, which are not needed here; on
a CPU it takes up to three times as long. `torch.var_mean` over batch and positions takes ten times as long there, and
its gradient takes four passes instead of one.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm


def _affine(h: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Compute scale * h + shift per channel, in one pass; scale and shift may have a wider dtype than h.

    It is a BatchNorm layer whose variance and eps are 0.5 each: their sum is exactly 1 in every precision, and torch
    2.11 requires eps > 0.
    """
    mean, half = torch.zeros_like(scale), torch.full_like(scale, 0.5)
    return F.batch_norm(h, mean, half, scale, shift, training=False, eps=0.5)


class _Normalize(torch.autograd.Function):
    @staticmethod
    def forward(ctx, h: Tensor, scale: Tensor, *layer: Tensor | float | None) -> Tensor:
        ctx.save_for_backward(scale)
        return F.batch_norm(h, *layer[:4], training=False, eps=layer[4])

    @staticmethod
    def backward(ctx, to_y: Tensor) -> tuple[Tensor | None, ...]:
        (scale,) = ctx.saved_tensors
        return (_affine(to_y, scale, torch.zeros_like(scale)), *[None] * 6)


class _Moments(torch.autograd.Function):
    @staticmethod
    def forward(ctx, h: Tensor, sets: int) -> tuple[Tensor, Tensor]:
        wide = torch.promote_types(h.dtype, torch.float32)  # the statistics are float32 also for a bfloat16 h
        unused = torch.zeros(2, h.shape[1], dtype=wide, device=h.device)
        statistics = [torch.batch_norm_update_stats(part, *unused, 0.0) for part in h.chunk(sets)]
        mean, var = (torch.stack(parts) for parts in zip(*statistics, strict=True))
        ctx.save_for_backward(h, mean)
        ctx.sets = sets
        return mean, var

    @staticmethod
    def backward(ctx, to_mean: Tensor, to_var: Tensor) -> tuple[Tensor, None]:
        h, mean = ctx.saved_tensors
        count = h.numel() // mean.numel()  # values per channel and set
        # d mean / dh = 1 / count and d var / dh = 2 (h - mean) / count: the gradient is affine in h per channel
        scale = 2 * to_var / count
        shift = to_mean / count - scale * mean
        gradients = [_affine(*part) for part in zip(h.chunk(ctx.sets), scale, shift, strict=True)]
        return (gradients[0] if len(gradients) == 1 else torch.cat(gradients)), None


def normalize(layer: _BatchNorm, h: Tensor) -> Tensor:
    """gamma (h - running_mean) / sqrt(running_var + eps) + beta: the layer in evaluation mode.

    Args:
        layer: the layer; its parameters get no gradients.
        h: the input (B, D, ...), which gets gradients.
    """
    gamma, beta = (None if part is None else part.detach() for part in (layer.weight, layer.bias))
    scale = (layer.running_var + layer.eps).rsqrt()
    scale = scale if gamma is None else scale * gamma
    return _Normalize.apply(h, scale, layer.running_mean, layer.running_var, gamma, beta, layer.eps)


def moments(h: Tensor, sets: int = 1) -> tuple[Tensor, Tensor]:
    """Compute mean and biased variance per channel over batch and positions, each (S, D), float32.

    Args:
        h: (B, D, ...), float32 or bfloat16; gets gradients.
        sets: S, the number of independent, equally large sets in the batch.
    """
    return _Moments.apply(h, sets)
