"""SOPHON: non-fine-tunable learning (Deng et al., IEEE S&P 2024, arXiv 2404.12699)."""

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from dfkd.domains import Images
from dfkd.models import Classifier
from dfkd.recipe import Recipe
from dfkd.scenarios import Scenario
from dfkd.teachers.base import TrainedTeacher, Training
from dfkd.training.meter import Meter
from dfkd.training.optimizers import fused

Loss = Callable[[Tensor, Tensor], Tensor]


def towards_uniform(logits: Tensor, labels: Tensor) -> Tensor:
    """KL(uniform || softmax) = -log C - mean_c log p_c, averaged over the batch; labels are not used.

    Args:
        logits: (B, C) of any number of classes C.
    """
    return -F.log_softmax(logits, 1).mean() - torch.log(torch.tensor(float(logits.shape[1]))).item()


def inverse_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """CE(1 - logits, y): small if the true class has the smallest logit."""
    return F.cross_entropy(1 - logits, labels)


OBJECTIVES: dict[str, Loss] = {"uniform": towards_uniform, "inverse": inverse_cross_entropy}


def suppress(
    net: nn.Module, batches: list[tuple[Images, Images]], objective: Loss, fast_lr: float
) -> tuple[dict[str, Tensor], Tensor]:
    """Compute first-order MAML gradients that make a simulated fine-tuning fail.

    From theta_0 = the network's weights, for every pair (adapt, evaluate):

        theta_{k+1} = theta_k - fast_lr grad CE(f(theta_k; adapt), y)
        g_k         = grad objective(f(theta_{k+1}; evaluate), y)  at theta_{k+1}

    The gradient for theta_0 is the mean of g_k, with the approximation d theta_k / d theta_0 = 1 (first order).

    Args:
        net: maps images to logits. Its weights are not changed, but the buffers of its BatchNorm layers are.
        batches: pairs (adapt, evaluate) of OOD batches, one per step of the simulated fine-tuning.
        objective: loss to minimise on the evaluate images after each step.
        fast_lr: learning rate of the simulated fine-tuning.

    Returns:
        gradients by parameter name, and the mean objective, a scalar.
    """
    fast = {name: p.detach().clone().requires_grad_() for name, p in net.named_parameters()}
    total = {name: torch.zeros_like(p) for name, p in fast.items()}
    value = torch.zeros((), device=next(iter(fast.values())).device)
    for adapt, evaluate in batches:
        loss = F.cross_entropy(functional_call(net, fast, (adapt.x,)).float(), adapt.y)
        steps = torch.autograd.grad(loss, list(fast.values()))
        fast = {
            name: (p.detach() - fast_lr * step).requires_grad_()
            for (name, p), step in zip(fast.items(), steps, strict=True)
        }
        loss = objective(functional_call(net, fast, (evaluate.x,)).float(), evaluate.y)
        gradients = torch.autograd.grad(loss, list(fast.values()))
        for name, gradient in zip(fast, gradients, strict=True):
            total[name] += gradient
        value += loss.detach()
    return {name: g / len(batches) for name, g in total.items()}, value / len(batches)


class SOPHON(TrainedTeacher):
    """A teacher that is right on the ID domain, and that fine-tuning cannot make right on the OOD domain.

    A supervised phase on ID (`epochs` of `recipe`) is followed by `rounds` rounds. Each round takes one suppression
    step on OOD (`suppress` over `batches` batches, Adam, gradient norm at most `clip`), then `id_steps` repair steps of
    cross-entropy on ID (Adam). BatchNorm's statistics are restored after a suppression step, so that they remain those
    of the ID domain.

    It needs a close set, because the simulated fine-tuning uses the network's own classes.

    Args:
        rounds: number of rounds of suppression and repair.
        objective: 'uniform' or 'inverse', the loss on OOD images after simulated fine-tuning.
        fast_lr: learning rate of the simulated fine-tuning (SGD).
        batches: steps of one simulated fine-tuning.
        adapt, evaluate: images per step for the fine-tuning, and for the objective; at least 2 each.
        suppress_lr, clip: learning rate and largest gradient norm of the suppression step.
        id_lr, id_steps: learning rate and number of the repair steps.
        args, kwargs: arguments of `TrainedTeacher`.

    Raises:
        ValueError: a number is out of range, or objective is unknown.
    """

    needs_ood = True

    def __init__(
        self,
        *args: Any,
        rounds: int = 100,
        objective: str = "uniform",
        fast_lr: float = 1e-4,
        batches: int = 5,
        adapt: int = 20,
        evaluate: int = 12,
        suppress_lr: float = 3e-3,
        clip: float = 0.5,
        id_lr: float = 1e-3,
        id_steps: int = 5,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        if objective not in OBJECTIVES:
            raise ValueError(f"objective must be one of {', '.join(OBJECTIVES)}, got '{objective}'")
        counts = {"rounds": rounds, "batches": batches, "id_steps": id_steps}
        # BatchNorm needs at least two images to compute a variance.
        for name, value, low in [(n, v, 1) for n, v in counts.items()] + [
            ("adapt", adapt, 2),
            ("evaluate", evaluate, 2),
        ]:
            if value < low:
                raise ValueError(f"{name} must be at least {low}, got {value}")
        for name, value in {"fast_lr": fast_lr, "suppress_lr": suppress_lr, "clip": clip, "id_lr": id_lr}.items():
            if value <= 0:
                raise ValueError(f"{name} must be positive, got {value}")
        self.rounds, self.objective, self.fast_lr, self.batches = rounds, objective, fast_lr, batches
        self.adapt, self.evaluate, self.suppress_lr, self.clip = adapt, evaluate, suppress_lr, clip
        self.id_lr, self.id_steps = id_lr, id_steps

    @property
    def log_calls(self) -> int:
        return self.epochs + self.rounds

    def check(self, scenario: Scenario) -> None:
        super().check(scenario)
        if scenario.ood_label is not None:
            raise ValueError(
                "teacher=sophon has no form with a taught label, it drives OOD answers away from every label: choose "
                "ntl_scenario=close_set"
            )
        needed, available = self.adapt + self.evaluate, len(scenario.ood.train)
        if needed > available:
            raise ValueError(f"adapt + evaluate = {needed} OOD images a step, but there are only {available}")

    def loss(
        self, model: Classifier, id_batch: Images, ood_batch: Images | None, ood_label: int | None
    ) -> dict[str, Tensor]:
        return {"id": F.cross_entropy(model(id_batch.x).float(), id_batch.y)}

    def fit(self, training: Training) -> None:
        super().fit(training)
        model, meter = training.model, Meter()
        suppression = fused(torch.optim.Adam, model.parameters(), lr=self.suppress_lr)
        constant = Recipe(optimizer="adam", lr=self.id_lr, weight_decay=0.0, schedule="constant")
        repair = constant.make(model.parameters(), self.rounds * self.id_steps)
        ood_batches = training.batches.endless(training.scenario.ood, self.adapt + self.evaluate)
        id_batches = training.batches.endless(training.scenario.id, training.batches.size)
        optimizers = {"suppression": suppression, "repair": repair}
        streams = {"meter": meter, "ood_batches": ood_batches, "id_batches": id_batches}
        for _ in self.loop("round", self.rounds, **training.parts(self), **optimizers, **streams):
            with training.runtime.autocast():
                meter.add({"suppress": self.suppression_step(model, ood_batches, suppression)})
            for _ in range(self.id_steps):
                with training.runtime.autocast():
                    terms = self.loss(model, next(id_batches), None, None)
                repair.step(terms["id"])
                meter.add(terms)
            training.report(self.epoch, meter.read(), model)
            self.epoch += 1

    def suppression_step(self, model: Classifier, ood, optimizer: torch.optim.Optimizer) -> Tensor:
        """Simulate one fine-tuning on `batches` batches of an OOD stream and take one step against it.

        Returns:
            the mean objective, a scalar.
        """
        pairs = []
        for _ in range(self.batches):
            batch = next(ood)
            pairs.append((batch.take(slice(0, self.adapt)), batch.take(slice(self.adapt, None))))
        buffers = copy.deepcopy(dict(model.named_buffers()))
        gradients, value = suppress(model, pairs, OBJECTIVES[self.objective], self.fast_lr)
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
        for name, p in model.named_parameters():
            p.grad = gradients[name]
        nn.utils.clip_grad_norm_(model.parameters(), self.clip)
        optimizer.step()
        return value
