"""The shuffling vaccine of ABD (Hong et al., ICML 2023, arXiv 2306.02368): it prevents a generator from making images
that activate the backdoor.

A backdoor is a shortcut through a few channels. A network with shuffled channels loses its predictions on clean images,
but keeps the backdoor's prediction on images with the trigger's features. The term penalises such images.
"""

import torch
from torch import Tensor, nn
from torch.func import functional_call

from dfkd.models import Teacher


def shuffling_term(logits: Tensor, shuffled: Tensor) -> Tensor:
    """- mean_{i: argmax h_i = argmax t_i} 1/C sum_c p_c(t_i) log(p_c(t_i) / p_c(h_i)); 0 where none agrees.

    Minimising it drives teacher and shuffled teachers apart on the images on which they agree.

    Args:
        logits: t, the teacher's (B, C), differentiable.
        shuffled: h, the mean of the shuffled teachers (B, C), differentiable.

    Returns:
        a scalar, at most 0.
    """
    t, h = logits.log_softmax(1), shuffled.log_softmax(1)
    divergence = (t.exp() * (t - h)).sum(1) / logits.shape[1]
    agree = logits.argmax(1) == shuffled.argmax(1)
    return -torch.where(agree, divergence, torch.zeros_like(divergence)).sum() / agree.sum().clamp_min(1)


def shufflable(net: nn.Module) -> list[str]:
    """Return the names of the weights of all convolutions with more than one input channel, in order of definition."""
    layers = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    return [
        f"{name}.weight" if name else "weight"
        for name, module in net.named_modules()
        if isinstance(module, layers) and module.weight.shape[1] > 1
    ]


def shuffled_weights(net: nn.Module, layers: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Copy the last `layers` of the `shufflable` weights (O, I, ...) and permute their input channels at random.

    Args:
        generator: draws the permutations; on the weights' device.

    Returns:
        permuted weights by parameter name.
    """
    weights = dict(net.named_parameters())
    shuffled = {}
    for name in shufflable(net)[-layers:]:
        weight = weights[name].detach()
        order = torch.randperm(weight.shape[1], generator=generator, device=weight.device)
        shuffled[name] = weight[:, order]
    return shuffled


class ShufflingVaccine:
    """The weighted shuffling term of a generator's loss.

    A shuffled teacher is the teacher's network called with other weights (`functional_call`). The teacher is neither
    copied nor changed, and the evaluations of shuffled teachers are counted as its own.

    Args:
        teacher: frozen, in evaluation mode.
        weight: weight of the term.
        copies: number of shuffled teachers; their logits are averaged.
        layers: number of last convolutions to shuffle.
        generator: draws the permutations once, at construction.
    """

    def __init__(self, teacher: Teacher, weight: float, copies: int, layers: int, generator: torch.Generator):
        self.teacher, self.weight = teacher, weight
        self.copies = [shuffled_weights(teacher.net, layers, generator) for _ in range(copies)]

    def __call__(self, images: Tensor, logits: Tensor) -> Tensor:
        """Compute the weighted `shuffling_term` of images (B, C, H, W) and the teacher's logits (B, classes)."""
        inputs = self.teacher.normalize(images)
        answers = [functional_call(self.teacher.net, weights, (inputs,)).float() for weights in self.copies]
        return self.weight * shuffling_term(logits, torch.stack(answers).mean(0))
