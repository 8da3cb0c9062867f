"""The shuffling vaccine of ABD (Hong et al., ICML 2023, arXiv 2306.02368): against images that need the backdoor.

What a backdoor answers to is short-cut through a few channels: a network whose channels are mixed up loses the clean
answers and keeps, on images that carry the trigger's features, the backdoor's. Such images are pushed away.
"""

import torch
from torch import Tensor, nn
from torch.func import functional_call

from dfkd.models import Teacher


def shuffling_term(logits: Tensor, shuffled: Tensor) -> Tensor:
    """- mean_{i: argmax h_i = argmax t_i} 1/C sum_c p_c(t_i) log(p_c(t_i) / p_c(h_i)); 0 where none agrees.

    Minimised, it drives the two apart on the images on which they agree.

    Args:
        logits: t, the teacher's (B, C); gradients pass them.
        shuffled: h, of the shuffled teachers (B, C); gradients pass them, too.

    Returns:
        a scalar, at most 0.
    """
    t, h = logits.log_softmax(1), shuffled.log_softmax(1)
    divergence = (t.exp() * (t - h)).sum(1) / logits.shape[1]
    agree = logits.argmax(1) == shuffled.argmax(1)
    return -torch.where(agree, divergence, torch.zeros_like(divergence)).sum() / agree.sum().clamp_min(1)


def shufflable(net: nn.Module) -> list[str]:
    """Names of the weights of all convolutions with more than one input channel, in the order of definition."""
    layers = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    return [
        f"{name}.weight" if name else "weight"
        for name, module in net.named_modules()
        if isinstance(module, layers) and module.weight.shape[1] > 1
    ]


def shuffled_weights(net: nn.Module, layers: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Copies of the last `layers` of the `shufflable` weights (O, I, ...), input channels permuted at random.

    Args:
        generator: of the permutations, on the weights' device.
    """
    weights = dict(net.named_parameters())
    shuffled = {}
    for name in shufflable(net)[-layers:]:
        weight = weights[name].detach()
        order = torch.randperm(weight.shape[1], generator=generator, device=weight.device)
        shuffled[name] = weight[:, order]
    return shuffled


class ShufflingVaccine:
    """The weighted term of a generator's loss.

    The shuffled teachers are the teacher itself called with other weights: it is not copied and not changed, and their
    evaluations are counted with its own.

    Args:
        teacher: frozen, in evaluation mode.
        weight: of the term.
        copies: how many shuffled teachers to average the logits of.
        layers: how many of the last convolutions to shuffle.
        generator: of the permutations, drawn once.
    """

    def __init__(self, teacher: Teacher, weight: float, copies: int, layers: int, generator: torch.Generator):
        self.teacher, self.weight = teacher, weight
        self.copies = [shuffled_weights(teacher.net, layers, generator) for _ in range(copies)]

    def __call__(self, images: Tensor, logits: Tensor) -> Tensor:
        """The weighted `shuffling_term` of images (B, C, H, W), for which the teacher gives `logits` (B, classes)."""
        inputs = self.teacher.normalize(images)
        answers = [functional_call(self.teacher.net, weights, (inputs,)).float() for weights in self.copies]
        return self.weight * shuffling_term(logits, torch.stack(answers).mean(0))
