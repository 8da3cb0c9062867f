"""The style of feature maps (mean and standard deviation per image and channel), and OOD maps in the style of ID maps.

Feature maps are float32, (B, C, H, W), or (B, C, N) for tokens (`dfkd.models.on_stages`).
"""

import math

import torch
from torch import Tensor, nn

from dfkd.models import stage_shapes

EPS = 1e-5


def instance_statistics(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Compute mean and standard deviation over the positions p, per image and channel.

        mean = sum_p h_p / P,   std = sqrt(sum_p (h_p - mean)^2 / P + 1e-5)

    Returns:
        (B, C) each.
    """
    var, mean = torch.var_mean(maps.flatten(2), dim=2, correction=0)
    return mean, (var + EPS).sqrt()


def without_style(maps: Tensor) -> Tensor:
    """(h - mean) / std, per image and channel: instance normalisation."""
    mean, std = (_over_positions(s, maps) for s in instance_statistics(maps))
    return (maps - mean) / std


def restyle(ood: Tensor, id: Tensor, generator: torch.Generator) -> Tensor:
    """CUTI's style injection (arXiv 2303.11078): modulate OOD maps by the statistics of the paired ID maps.

        ood_i * sigmoid(W_std std(id_i)) + sigmoid(W_mean mean(id_i))

    Both matrices are drawn at every call from U(-1, 1) / sqrt(C), the initialisation of a 1x1 convolution without bias.
    They are never trained.

    Args:
        ood, id: maps (B, C, ...) of one stage, paired by index.
        generator: draws the matrices; on the maps' device.

    Returns:
        (B, C, ...), differentiable in both inputs.
    """
    mean, std = instance_statistics(id)
    channels = ood.shape[1]
    draw = torch.rand(2, channels, channels, generator=generator, device=ood.device)
    of_std, of_mean = (2 * draw - 1) / channels**0.5
    scale, shift = torch.sigmoid(std @ of_std.T), torch.sigmoid(mean @ of_mean.T)
    return ood * _over_positions(scale, ood) + _over_positions(shift, ood)


def has_style(maps: Tensor) -> bool:
    """Whether maps have at least two positions; over a single position the standard deviation is always 0."""
    return maps[0, 0].numel() > 1


def require_style(name: str, net: nn.Module, shape: tuple[int, int, int]) -> None:
    """Raise ValueError unless at least one stage of the network has maps with two or more positions.

    Args:
        name: the teacher's name, for the message.
        shape: (C, H, W) of the images.
    """
    try:
        shapes = stage_shapes(net, shape)
    except ValueError as error:
        raise ValueError(f"teacher={name} works on feature maps: {error}") from error
    if all(math.prod(maps[1:]) < 2 for maps in shapes):
        raise ValueError(
            f"teacher={name} needs feature maps of at least two positions; this network has none after its stages at "
            f"{shape[1]}x{shape[2]} pixels: set data.size higher"
        )


def _over_positions(values: Tensor, maps: Tensor) -> Tensor:
    return values.view(*values.shape, *[1] * (maps.dim() - 2))
