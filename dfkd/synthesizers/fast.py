"""Fast: up to 100x faster data-free knowledge distillation (Fang et al., AAAI 2022, arXiv 2112.06253).

Needs the teacher's outputs, input gradients and BatchNorm statistics (the BN prior is optional). Uses the student after
its warm-up.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from dfkd.models import Teacher
from dfkd.synthesizers.inversion import Inversion, check_adam
from dfkd.synthesizers.renew import check_std, renew_first
from dfkd.synthesizers.step import Optimization, tensors_of
from dfkd.training.optimizers import fused

REPTILE = 67.0  # factor of theta - theta_k in the public code; Adam's step is almost independent of it


class Fast(Inversion):
    """Meta-learns the initialisation of a generator, so that a copy of it needs only a few steps per batch.

        one_hot * CE(t, y) + adversarial * adversarial_term (where t and s agree) + BN prior with moving averages

    In every round a copy of the generator and newly drawn latent vectors z take `steps` steps of Adam. Then the
    generator (weights theta; theta_k those of the copy) takes one step of its own Adam with the gradient
        fomaml:   sum of the copy's gradients over its steps
        reptile:  theta - theta_k

    Args:
        generator: maps latent vectors (B, generator.latent) to images in [0, 1]; it stays in training mode.
        meta: 'fomaml' or 'reptile'.
        lr, latent_lr: learning rates of the copy and of z.
        meta_lr: learning rate of the generator; None means steps * lr.
        reset: number of rounds after the warm-up at which the first linear layer and the first BatchNorm are
            initialised again; None means never.
        init_std: standard deviation of the weights of this initialisation (`renew_first`); None: torch's own.
        betas: betas of both Adam optimisers.
        args, kwargs: arguments of `Inversion`.

    Raises:
        ValueError: a number is out of range, or meta is unknown.
    """

    def __init__(
        self,
        generator: nn.Module,
        *args: Any,
        one_hot: float = 0.4,
        adversarial: float = 1.1,
        warm_up: int = 20,
        meta: str = "fomaml",
        lr: float = 2e-3,
        latent_lr: float = 0.01,
        meta_lr: float | None = None,
        reset: int | None = 120,
        init_std: float | None = None,
        betas: tuple[float, float] = (0.5, 0.999),
        **kwargs: Any,
    ):
        super().__init__(*args, one_hot=one_hot, adversarial=adversarial, warm_up=warm_up, **kwargs)
        if meta not in ("fomaml", "reptile"):
            raise ValueError(f"meta must be fomaml or reptile, got '{meta}'")
        check_adam(lr, betas)
        for name, value in (("latent_lr", latent_lr), ("meta_lr", meta_lr)):
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be positive, got {value}")
        if reset is not None and reset < 0:
            raise ValueError(f"reset must not be negative, got {reset}")
        check_std(init_std)
        self.generator, self.meta, self.reset, self.init_std = generator, meta, reset, init_std
        self.lr, self.latent_lr, self.meta_lr = lr, latent_lr, self.steps * lr if meta_lr is None else meta_lr
        self.betas = tuple(betas)

    def start(self, runtime, seed: int) -> None:
        super().start(runtime, seed)
        runtime.to_device(self.generator).train()
        self.adapted = copy.deepcopy(self.generator)  # the copy; one for all rounds, so that a CUDA graph holds for all
        self.optimizer = fused(torch.optim.Adam, self.generator.parameters(), lr=self.meta_lr, betas=self.betas)

    def begin(self, round: int, labels: Tensor, teacher: Teacher, stream: torch.Generator) -> Optimization:
        if self.reset is not None and round == self.warm_up + self.reset:
            renew_first(self.generator, self.seed, "synthesis", "reset", round, std=self.init_std)
        with torch.no_grad():
            for tensor, twin in zip(tensors_of(self.generator), tensors_of(self.adapted), strict=True):
                twin.copy_(tensor)
        size = (len(labels), self.generator.latent)
        z = torch.randn(size, generator=stream, device=self.runtime.device).requires_grad_()
        own, copied = list(self.generator.parameters()), list(self.adapted.parameters())
        groups = [{"params": copied}, {"params": [z], "lr": self.latent_lr}]
        optimizer = fused(torch.optim.Adam, groups, lr=self.lr, betas=self.betas)
        self.optimizer.zero_grad()

        def advance() -> None:
            if self.meta == "fomaml":
                for parameter, twin in zip(own, copied, strict=True):
                    parameter.grad = twin.grad.clone() if parameter.grad is None else parameter.grad + twin.grad
            optimizer.step()

        def finish() -> None:
            if self.meta == "reptile":
                for parameter, twin in zip(own, copied, strict=True):
                    parameter.grad = REPTILE * (parameter.detach() - twin.detach())
            self.optimizer.step()

        return Optimization(self.adapted, z, advance, (self.adapted,), finish)
