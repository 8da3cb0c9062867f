"""The restricted adversary of DHBE (Yan et al., AsiaCCS 2023, arXiv 2306.08009): a generator of small patches that
change a student's answers, which the student learns to ignore."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfkd.training.optimizers import fused


class TriggerGenerator(nn.Module):
    """Maps latent vectors (B, latent) to square patches (B, channels, size, size) in [-1, 1].

    Layers: linear to `width` channels - BN - conv - BN without parameters - tanh. The last BN keeps the patches spread
    over the range, so that they cannot all become the same.

    Args:
        channels: channels of the images.
        size: side of a patch in pixels.
        latent: length of the latent vector.
        width: channels of the feature map.
    """

    def __init__(self, channels: int, size: int, latent: int = 256, width: int = 64):
        super().__init__()
        self.latent = latent
        self.paint = nn.Sequential(
            nn.Linear(latent, width * size**2),
            nn.Unflatten(1, (width, size, size)),
            nn.BatchNorm2d(width),
            nn.Conv2d(width, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels, affine=False),
            nn.Tanh(),
        )

    def forward(self, z: Tensor) -> Tensor:
        return self.paint(z)


def place_at_random(patches: Tensor, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Place patches (B, C, p, p) in images of zeros (B, C, height, width), all at one random position.

    Every position at which the patches lie inside the image is equally likely.
    """
    size, device = patches.shape[-1], patches.device
    canvas = F.pad(patches, (0, width - size, 0, height - size))  # in the top-left corner
    first = (torch.randint(side - size + 1, (), generator=generator, device=device) for side in (height, width))
    rows, columns = (
        (torch.arange(side, device=device) - start) % side for side, start in zip((height, width), first, strict=True)
    )  # where each row and column comes from; tensors, as reading the position would synchronise with a GPU
    return canvas[:, :, rows[:, None], columns]


class TriggerAdversary:
    """A term of the student's loss (`dfkd.defenses.base.StudentTerm`): a patch must not change its answers.

        term = weight * mean_i D(S(x_i + d_i), S(x_i)),    d_i = the generator's patch for z_i ~ N(0, 1)

    No gradient passes S(x). In every `every`-th call the generator first takes a step of Adam that maximises the same
    mean. The sum x + d is not clamped, and leaves [0, 1] where a patch makes bright pixels brighter.

    Args:
        triggers: generates the patches; on the device of the images.
        loss: D, the distance of two answers per image: (logits, given logits) -> (B,).
        weight: weight of the term.
        every: number of calls per step of the generator.
        lr: learning rate of the generator's Adam.
        generator: draws latent vectors and positions.
    """

    def __init__(
        self,
        triggers: TriggerGenerator,
        loss: Callable[[Tensor, Tensor], Tensor],
        weight: float,
        every: int,
        lr: float,
        generator: torch.Generator,
    ):
        self.triggers, self.loss, self.weight, self.every, self.generator = triggers, loss, weight, every, generator
        self.optimizer = fused(torch.optim.Adam, triggers.parameters(), lr=lr)
        self.calls = 0

    def __call__(self, student: Callable[[Tensor], Tensor], images: Tensor, logits: Tensor) -> Tensor:
        """Compute the weighted term of images (B, C, H, W) and the student's logits for them (B, classes)."""
        clean = logits.detach()
        self.calls += 1
        if self.calls % self.every == 0:
            self._train(student, images, clean)
        with torch.no_grad():
            perturbation = self._perturbation(images)
        return self.weight * self.loss(student(images + perturbation), clean).mean()

    def _train(self, student: Callable[[Tensor], Tensor], images: Tensor, clean: Tensor) -> None:
        """Take one step of the generator."""
        loss = -self.loss(student(images + self._perturbation(images)), clean).mean()
        parameters = list(self.triggers.parameters())
        for p, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            p.grad = gradient
        self.optimizer.step()

    def _perturbation(self, images: Tensor) -> Tensor:
        """Draw the perturbations d of a batch, (B, C, H, W), zero outside of the patches."""
        z = torch.randn(len(images), self.triggers.latent, generator=self.generator, device=images.device)
        return place_at_random(self.triggers(z), *images.shape[2:], self.generator)
