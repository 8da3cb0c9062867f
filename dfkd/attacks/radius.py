"""How far an image is from the next class: the smallest radius at which an attack changes the predicted label."""

from dataclasses import replace

import torch
from torch import Tensor

from dfkd.attacks.pgd import PGD, label_margin
from dfkd.machine.precision import exact_float32
from dfkd.models.classifier import Classifier


def first_order_radius(model: Classifier, images: Tensor, logits: Tensor) -> Tensor:
    """Estimate the L-infinity radius (B,) at which the label flips (`answers_and_radii`).

    Args:
        model, images: as for `answers_and_radii`.
        logits: the model's logits for the images (B, classes); only the largest of each row is used.
    """
    return answers_and_radii(model, images, logits)[1]


def answers_and_radii(model: Classifier, images: Tensor, known: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Compute the logits (B, classes) and, in the same pass, estimate the L-infinity radius (B,) at which the label
    flips, from one gradient:

        m / ||grad_x m||_1,    m = logit of the predicted label - largest other logit

    For a linear classifier this is the exact radius of the nearest other class by logit; in general it is the first
    step of DeepFool for the L-infinity norm (Moosavi-Dezfooli et al., CVPR 2016, arXiv 1511.04599). It is infinite
    where the gradient is zero.

    Args:
        model: a classifier in evaluation mode.
        images: (B, C, H, W), float.
        known: logits for the images (B, classes) whose largest of each row is the label; None for those computed here.
    """
    with exact_float32(images.device), torch.enable_grad():
        x = images.detach().requires_grad_()
        logits = model(x).float()
        margin = label_margin(logits, (logits if known is None else known).argmax(1))
        (gradient,) = torch.autograd.grad(margin.sum(), x)
    return logits.detach(), margin.detach().clamp_min(0) / gradient.abs().flatten(1).sum(1)


def flip_radius(
    attack: PGD,
    model: Classifier,
    images: Tensor,
    logits: Tensor,
    generator: torch.Generator,
    low: float = 1 / 1024,
    high: float = 0.5,
    halvings: int = 5,
) -> Tensor:
    """Find the smallest radius (B,) at which an attack flips each image, by bisection of its logarithm in [low, high].

    Args:
        attack: gives everything except the radius and the step size, which is 2.5 radii / steps.
        model, images, logits, generator: as for `PGD.attack`.
        halvings: number of attacks on every image. The result is right up to the factor (high / low)^(2^-(halvings+1)).
    """
    below = torch.full((len(images),), low, device=images.device).log()
    above = torch.full_like(below, high).log()
    for _ in range(halvings):
        middle = (below + above) / 2
        flipped = torch.zeros_like(middle, dtype=torch.bool)
        for radius in middle.unique():  # images with the same radius are attacked together
            here = (middle == radius).nonzero().flatten()
            there = replace(attack, eps=radius.exp().item(), step=None)
            flipped[here] = there.attack(model, images[here], generator, logits[here]).flipped
        below, above = torch.where(flipped, below, middle), torch.where(flipped, middle, above)
    return ((below + above) / 2).exp()
