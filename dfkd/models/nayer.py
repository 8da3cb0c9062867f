"""NAYER's generator: from label embeddings through a noisy layer to images in [0, 1]."""

import torch
from torch import Tensor, nn

from dfkd.models.generator import DCGAN


class NoisyLinear(nn.Module):
    """K parallel linear layers, drawn again for every batch; the only source of variety among the images of a class.

    Row i of a batch passes layer (i // rows) % K. Initially, weights ~ N(0, 1) and biases are 0.

    Args:
        inputs, outputs: widths.
        rows: number of consecutive rows that share a layer.
    """

    def __init__(self, inputs: int, outputs: int, rows: int):
        super().__init__()
        self.inputs, self.outputs, self.rows = inputs, outputs, rows
        self.weight = nn.Parameter(torch.empty(1, inputs, outputs))
        self.bias = nn.Parameter(torch.empty(1, outputs))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        self.weight.normal_()
        self.bias.zero_()

    @torch.no_grad()
    def redraw(self, layers: int, generator: torch.Generator) -> None:
        """Draw new weights for `layers` (K) noisy layers; in place if there are as many as before."""
        if len(self.weight) != layers:
            self.weight = nn.Parameter(self.weight.new_empty(layers, self.inputs, self.outputs))
            self.bias = nn.Parameter(self.bias.new_empty(layers, self.outputs))
        self.weight.copy_(torch.randn(self.weight.shape, generator=generator, device=self.weight.device))
        self.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs) -> (B, outputs)."""
        # not self.weight[i]: the gradient of every such index is as large as all layers, and zero but for one
        layers = list(zip(self.bias.unbind(), self.weight.unbind(), strict=True))
        parts = enumerate(x.split(self.rows))
        return torch.cat([torch.addmm(bias, part, w) for i, part in parts for bias, w in [layers[i % len(layers)]]])


class NLGenerator(nn.Module):
    """The generator of NAYER (Tran et al., CVPR 2024, arXiv 2310.00258).

    Layers: BatchNorm of the label embeddings - noisy layer with `noise` outputs, one layer for every `classes` rows -
    the DCGAN generator of CMI's benchmark. It maps (B, latent) to images as the other generators do, so that other
    synthesizers can use it, too (with one noisy layer).

    Args:
        shape: (C, H, W) of the images; H and W divisible by 4.
        classes: number of consecutive rows that share a noisy layer.
        embedding: length of a label embedding, also called `latent`.
        noise: outputs of the noisy layer.
        width: `width` of `DCGAN`.

    Raises:
        ValueError: a side of the image is not divisible by 4, or a number is not positive.
    """

    def __init__(
        self, shape: tuple[int, int, int], classes: int, embedding: int = 512, noise: int = 1000, width: int = 128
    ):
        super().__init__()
        if embedding < 1 or noise < 1 or width < 2:
            raise ValueError(
                f"the nayer generator needs embedding >= 1, noise >= 1 and width >= 2, got {embedding}, {noise} and "
                f"{width}"
            )
        self.latent = embedding
        self.norm = nn.BatchNorm1d(embedding)
        self.noisy = NoisyLinear(embedding, noise, classes)
        self.body = DCGAN(shape, latent=noise, width=width)

    def redraw(self, count: int, generator: torch.Generator) -> None:
        """Draw as many new noisy layers as `count` rows need."""
        self.noisy.redraw(-(-count // self.noisy.rows), generator)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Generate images (B, C, H, W) in [0, 1] from embeddings (B, embedding) of the classes 0 1 2 ... 0 1 2 ..."""
        return self.body(self.noisy(self.norm(embeddings)))
