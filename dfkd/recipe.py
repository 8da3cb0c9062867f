"""Optimizer and learning-rate schedule of a training, for teachers and students."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from dfkd.training.optimizers import fused


@dataclass(frozen=True)
class Recipe:
    """Optimizer and learning-rate schedule of a training.

    Args:
        optimizer: 'sgd' (with momentum), 'adam' or 'adamw'.
        lr: peak learning rate.
        momentum: momentum of SGD, in [0, 1).
        nesterov: whether SGD uses Nesterov's momentum.
        weight_decay: L2 penalty; decoupled weight decay with 'adamw'.
        schedule: learning rate of each optimisation step over the whole training: 'constant'; 'cosine' (from `lr` to
            `final` * `lr`); 'one_cycle' (up from lr / 25 to `lr` in 30 % of the steps, then down to lr / 250,000);
            'triangular' (in a straight line up from lr / 5 to `lr` in 23 % of the steps, then down to `final` * `lr`);
            'exponential' (multiplied by `gamma` after each step).
        final: last learning rate of 'cosine' and 'triangular', as a share of `lr`, in [0, 1].
        gamma: factor per step of 'exponential', in (0, 1].
        batch_size: number of images per step.
        clip: largest norm of the gradient; None: no clipping.

    Raises:
        ValueError: a name is unknown, or a number is out of range.
    """

    optimizer: str = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    schedule: str = "one_cycle"
    final: float = 0.0
    gamma: float = 0.999
    batch_size: int = 128
    clip: float | None = None

    def __post_init__(self):
        for name, value, known in (
            ("optimizer", self.optimizer, ("sgd", "adam", "adamw")),
            ("schedule", self.schedule, ("constant", "cosine", "one_cycle", "triangular", "exponential")),
        ):
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got '{value}'")
        if self.lr <= 0 or self.batch_size < 1 or self.weight_decay < 0:
            raise ValueError(
                f"a recipe needs lr > 0, batch_size >= 1 and weight_decay >= 0, got lr={self.lr}, "
                f"batch_size={self.batch_size}, weight_decay={self.weight_decay}"
            )
        if self.clip is not None and self.clip <= 0:
            raise ValueError(f"clip must be positive, or null for none, got {self.clip}")
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov=true needs a momentum above 0")
        if not 0 <= self.momentum < 1 or not 0 < self.gamma <= 1 or not 0 <= self.final <= 1:
            raise ValueError(
                f"a recipe needs momentum in [0, 1), gamma in (0, 1] and final in [0, 1], got "
                f"momentum={self.momentum}, gamma={self.gamma}, final={self.final}"
            )

    def make(self, parameters: Iterable[nn.Parameter], steps: int) -> "Stepper":
        """Return the optimizer and schedule for a training of `steps` optimisation steps."""
        parameters = list(parameters)
        shared = {"lr": self.lr, "weight_decay": self.weight_decay}
        if self.optimizer == "sgd":
            optimizer = fused(torch.optim.SGD, parameters, momentum=self.momentum, nesterov=self.nesterov, **shared)
        else:
            kind = torch.optim.Adam if self.optimizer == "adam" else torch.optim.AdamW
            optimizer = fused(kind, parameters, **shared)
        return Stepper(optimizer, self._scheduler(optimizer, max(steps, 1)), parameters, self.clip)

    def _scheduler(self, optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
        schedulers = torch.optim.lr_scheduler
        if self.schedule == "one_cycle":
            # One step more than the training takes, as in CAKE: the schedule does not reach its end value.
            return schedulers.OneCycleLR(optimizer, self.lr, total_steps=steps + 1)
        if self.schedule == "exponential":
            return schedulers.ExponentialLR(optimizer, self.gamma)
        if self.schedule == "cosine":
            low = self.final

            def factor(step: int) -> float:
                return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * min(step / steps, 1.0)))

            return schedulers.LambdaLR(optimizer, factor)
        if self.schedule == "triangular":
            return schedulers.LambdaLR(optimizer, lambda step: _triangle(min(step / steps, 1.0), self.final))
        return schedulers.LambdaLR(optimizer, lambda step: 1.0)


def _triangle(done: float, final: float) -> float:
    """Return the learning rate of 'triangular' as a share of its peak, after a share `done` of the steps."""
    start, peak = 0.2, 0.23  # as in the public code of arXiv 2404.00498
    return start + (1 - start) * done / peak if done < peak else 1 + (final - 1) * (done - peak) / (1 - peak)


class Stepper:
    """Takes optimisation steps: gradients, clip, optimizer step, scheduler step."""

    def __init__(self, optimizer, scheduler, parameters: list[nn.Parameter], clip: float | None):
        self.optimizer, self.scheduler, self.parameters, self.clip = optimizer, scheduler, parameters, clip

    def step(self, loss: torch.Tensor) -> None:
        """Take a step with the gradients of a loss."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._advance()

    def apply(self, gradients: Iterable[torch.Tensor | None]) -> None:
        """Take a step with given gradients, one for each parameter (None where it has none)."""
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        self._advance()

    def _advance(self) -> None:
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.clip)
        self.optimizer.step()
        self.scheduler.step()

    @property
    def lr(self) -> float:
        return self.optimizer.param_groups[0]["lr"]
