"""A trial of CAKE with few images, which tells in seconds which step sizes cannot move an image to its class."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dfkd.noise import Noise
from dfkd.training.optimizers import fused

SETS, IMAGES = 8, 20  # sets of a trial, spread evenly over the pool, and images of each, in whole rows
LARGEST_SHARE = 1 / 50  # of the pool's evaluations; a pool so small that the trial costs more is not worth one
ENOUGH = 0.5  # a set works if at least this share of its images have reached their class
TOLERATED = 0.2  # share of sets that may fail before there is a warning


@dataclass(frozen=True)
class Trial:
    """The outcome of one set of a trial.

    Attributes:
        eps: the step size of the set.
        reached: share of its images to which the teacher gave their class at any step.
    """

    eps: float
    reached: float

    @property
    def works(self) -> bool:
        return self.reached >= ENOUGH


def spread(rounds: int) -> list[int]:
    """Return the numbers of the sets to try, in the middle of equal parts of the pool."""
    count = min(SETS, rounds)
    return [(2 * i + 1) * rounds // (2 * count) for i in range(count)]


def shares_reached(
    kind: type[torch.optim.Optimizer],
    sets: list[Tensor],
    rates: list[float],
    labels: Tensor,
    steps: int,
    gradients: Callable[[], tuple[Sequence[Tensor], Tensor]],
) -> list[float]:
    """Optimise sets of images, and return the share of each set's images that reach their class at any step.

    Args:
        kind: class of the optimizer.
        sets: S tensors (B, C, H, W) that are optimised in place.
        rates: the learning rate of every set.
        labels: the classes of all images (S, ...).
        gradients: () -> the gradient of the loss for every set, and the teacher's logits for all images
            (S * B, classes).
    """
    optimizer = fused(kind, [{"params": [x], "lr": rate} for x, rate in zip(sets, rates, strict=True)])
    reached = torch.zeros(labels.numel(), dtype=torch.bool, device=labels.device)
    for _ in range(steps):
        of_sets, logits = gradients()
        reached |= logits.argmax(1) == labels.flatten()
        for x, gradient in zip(sets, of_sets, strict=True):
            x.grad = gradient
        optimizer.step()
    return reached.view(len(sets), -1).float().mean(1).tolist()


def advice(trials: list[Trial], rounds: int, steps: int, noise: Noise) -> list[str]:
    """Return a warning with what to set if too many sets of a trial fail; otherwise an empty list.

    Args:
        rounds: number of sets of the pool.
        steps: optimisation steps of a set.
        noise: the step sizes of the pool.
    """
    failing, working = ([trial.eps for trial in trials if trial.works == works] for works in (False, True))
    if len(failing) <= TOLERATED * len(trials):
        return []
    text = (
        f"about {len(failing) / len(trials):.0%} of the {rounds} sets would stay noise: in a trial, most of their "
        f"images did not reach their class in {steps} steps of sizes from {min(failing):.1e} to {max(failing):.1e}"
    )
    if working and max(failing) < min(working) and noise.schedule in ("linear", "cosine"):
        decades = math.floor(10 * math.log10(noise.eps / min(working))) / 10
        return [f"{text}; set noise.decades={decades:g}, with which all step sizes are large enough"]
    if working and min(failing) > max(working):
        return [f"{text}, which are too large; set noise.eps={max(working):.1e}"]
    return [f"{text}; try another noise.eps, more synthesizer.steps or a larger synthesizer.class_weight"]
