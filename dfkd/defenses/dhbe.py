"""DHBE: data-free holistic backdoor erasing (Yan et al., AsiaCCS 2023, arXiv 2306.08009)."""

from collections.abc import Callable

import torch
from torch import Tensor

from dfkd.defenses.base import Defense, StudentTerm
from dfkd.defenses.trigger_adversary import TriggerAdversary, TriggerGenerator


class DHBE(Defense):
    """Restricted adversarial distillation: while it is distilled, the student learns to ignore small patches, which a
    generator makes against it. All images are distilled.

    A trigger is a small patch that changes the answers to all images. The student's loss is the distillation loss plus
    the term of `TriggerAdversary`, whose generator is trained along with the student. The term measures the change by
    the distillation loss, too: in the public code both are the L1 distance of the logits. This distance would not do
    beside a loss on softmax outputs (KL), which leaves the mean of an image's logits free: the generator then makes
    that mean grow without limit.

    Differences from the public code: the student is not a copy of the teacher at the start, but whatever network is
    configured; the images, the distillation loss and the student's recipe are those of the configuration (there DFAD's,
    with a prior on the total variation); the patch generator is trained on the student's batches and not on images of
    its own; its learning rate is constant (there divided by 10 after 60 % and 80 % of the training); it does not
    upsample, which it does there for sides of 10 pixels and more.

    Args:
        shape: (C, H, W) of the images.
        weight: weight of the term, at least 0; 0 is plain distillation.
        size: side of a patch in pixels; it should cover the triggers that are to be erased.
        latent, width: arguments of `TriggerGenerator`.
        every: student steps per step of the patch generator.
        lr: learning rate of the patch generator (Adam).

    Raises:
        ValueError: a number is out of range, or the patch does not fit the images.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        weight: float = 0.1,
        size: int = 5,
        latent: int = 256,
        width: int = 64,
        every: int = 5,
        lr: float = 1e-3,
    ):
        for name, value in {"size": size, "latent": latent, "width": width, "every": every}.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if weight < 0:
            raise ValueError(f"weight must not be negative, got {weight}")
        if lr <= 0:
            raise ValueError(f"lr must be positive, got {lr}")
        channels, height, columns = shape
        if size > min(height, columns):
            raise ValueError(
                f"a patch of {size}x{size} pixels does not fit images of {height}x{columns}; set defense.size to "
                f"{min(height, columns)} or less (points and embeddings have no pixels: choose another defense)"
            )
        self.channels, self.weight, self.size = channels, weight, size
        self.latent, self.width, self.every, self.lr = latent, width, every, lr

    def student_term(self, loss: Callable[[Tensor, Tensor], Tensor], generator: torch.Generator) -> StudentTerm | None:
        if self.weight == 0:
            return None
        triggers = TriggerGenerator(self.channels, self.size, self.latent, self.width).to(generator.device)
        return TriggerAdversary(triggers, loss, self.weight, self.every, self.lr, generator)
