"""CAKE: contrastive abductive knowledge extraction (Braun et al., AISTATS 2024, arXiv 2306.02090).

Needs the teacher's outputs and input gradients. Does not use the student. Optimises in the teacher's normalised space
without clipping, so that images may leave [0, 1].
"""

import copy
from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn

from dfkd.machine.capture import detached
from dfkd.machine.runtime import Runtime
from dfkd.models import Teacher
from dfkd.noise import Noise
from dfkd.priors import Prior, TeacherPass, TotalVariation
from dfkd.synthesizers import pilot
from dfkd.synthesizers.base import Steer, Synthesizer, Synthetic
from dfkd.synthesizers.cake_terms import class_term, contrast_mse, contrast_snn
from dfkd.training.meter import Meter
from dfkd.training.optimizers import fused

# Thresholds of warnings, between values that worked and values that failed on the digits and MNIST (docs/results.md):
# TV steps of 2.6 and 7.8; for networks with global pooling, contrast_weight of 10 and 1e-3.
LARGEST_TV_STEP = 4.0
SMALLEST_POOLED_CONTRAST = 1.0


class CAKE(Synthesizer):
    """Optimises pairs (or larger groups) of noisy images; a contrastive term pulls them to the teacher's decision
    boundary.

    A set of `batch_size` images has B rows of G images of G distinct classes. Starting from N(0, 1), `steps` steps of
    SGD or Adam on the pixels minimise, per set,

        class_weight * class_term + contrast_weight * contrast + sum of the weighted priors

    with learning rate eps_t, t the number of the set (`Noise`). The weights act as unnormalised step sizes and are
    tuned for their batch_size and groups; changing these rescales all terms.

    Args:
        shape: (C, H, W) of the images.
        classes: number of classes of the teacher.
        prior: weighted priors; CAKE uses TV.
        noise: step size and Langevin noise.
        rounds: number of sets.
        steps: optimisation steps per set.
        batch_size: images per set, B * G.
        groups: G, images per row.
        class_weight, contrast_weight: weights of the two terms, at least 0; a term of weight 0 is skipped.
        contrast: 'mse' or 'snn'.
        temperature: T of 'snn', positive.
        optimizer: 'sgd' (no momentum) or 'adam'.
        step_size: learning rate if `noise` gives none (noise=none).
        snapshots: how many times the images of a set are added to the pool: after steps / snapshots steps, after twice
            as many, ..., after the last. 1 is the paper's: only after the last. Earlier images cost no additional
            evaluation, because the optimisation has computed the teacher's logits (in the precision of the run).
        chunk: largest number of images that are optimised in parallel, in whole sets; affects only the speed.

    Raises:
        ValueError: groups does not divide batch_size or exceeds the classes, a number is out of range, or contrast or
            optimizer is unknown.
    """

    columns = ("eps", "target")
    independent = True

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int,
        prior: Prior,
        noise: Noise,
        rounds: int,
        steps: int,
        batch_size: int,
        groups: int,
        class_weight: float,
        contrast_weight: float,
        contrast: str = "mse",
        temperature: float = 1.0,
        optimizer: str = "sgd",
        step_size: float = 0.1,
        snapshots: int = 1,
        chunk: int = 1000,
    ):
        super().__init__(rounds)
        if steps < 1 or batch_size < 1 or groups < 1:
            raise ValueError(
                f"cake needs steps, batch_size and groups of at least 1, got {steps}, {batch_size}, {groups}"
            )
        if batch_size % groups:
            raise ValueError(
                f"groups={groups} does not divide batch_size={batch_size}; a set is rows of `groups` images"
            )
        if groups > classes:
            raise ValueError(f"groups={groups} exceeds the teacher's {classes} classes; a row's classes are distinct")
        if class_weight < 0 or contrast_weight < 0:
            raise ValueError(f"weights must not be negative, got {class_weight} (class), {contrast_weight} (contrast)")
        if contrast not in ("mse", "snn") or optimizer not in ("sgd", "adam"):
            raise ValueError(
                f"contrast must be 'mse' or 'snn', optimizer 'sgd' or 'adam', got '{contrast}', '{optimizer}'"
            )
        if temperature <= 0 or step_size <= 0:
            raise ValueError(f"temperature and step_size must be positive, got {temperature}, {step_size}")
        if not 1 <= snapshots <= steps:
            raise ValueError(f"snapshots must be between 1 and steps={steps}, got {snapshots}")
        self.shape, self.classes, self.prior, self.noise = shape, classes, prior, noise
        self.steps, self.rows, self.groups = steps, batch_size // groups, groups
        self.class_weight, self.contrast_weight = class_weight, contrast_weight
        self.contrast, self.temperature = contrast, temperature
        self.optimizer, self.step_size = optimizer, step_size
        self.moments = [steps * (k + 1) // snapshots for k in range(snapshots)]
        self.rounds_per_call = max(1, chunk // batch_size)

    def check(self, network: nn.Module) -> None:
        if not (self.class_weight or self.contrast_weight or self.prior.terms):
            raise ValueError("cake has nothing to minimise: class_weight, contrast_weight and every prior are 0")
        if self.prior.memories:
            raise ValueError(
                f"prior '{self.prior.memories[0]}' carries statistics from round to round, but cake's sets are "
                f"independent of each other; take prior=bn"
            )
        self.prior.check(network)

    def warnings(self, network: nn.Module) -> list[str]:
        warnings, tv = [], self.prior.terms.get("tv")
        if isinstance(tv, TotalVariation) and self.optimizer == "sgd":
            eps = self.noise.step_size(0, self.rounds) or self.step_size
            step = eps * tv.weight / (self.rows * self.groups * prod(self.shape))
            if step > LARGEST_TV_STEP:
                warnings.append(
                    f"total variation moves a pixel by {step:.1f} per neighbour and step, in units of the images' std: "
                    f"it drowns the other terms; lower prior.tv.weight to {tv.weight * 0.1 / step:.0e} or so"
                )
        pools = any(isinstance(module, nn.AdaptiveAvgPool2d) for module in network.modules())
        if pools and self.contrast == "mse" and self.contrast_weight < SMALLEST_POOLED_CONTRAST:
            warnings.append(
                f"the teacher averages over all positions, which is easily satisfied by texture: with contrast_weight="
                f"{self.contrast_weight:g} its students have been poor; try synthesizer.contrast_weight=10"
            )
        return warnings

    def try_out(self, teacher: Teacher) -> list[str]:
        small = self._small()
        images, pool = len(pilot.spread(self.rounds)) * small.rows, self.rounds * self.rows
        if self.class_weight == 0 or images > pilot.LARGEST_SHARE * pool:
            return []
        return pilot.advice(self.trial(teacher), self.rounds, self.steps, self.noise)

    def trial(self, teacher: Teacher) -> list[pilot.Trial]:
        """Optimise a few images of sets that are spread over the pool, with all steps.

        The terms of the loss are means over a set's images, so that in a small set an image has a larger gradient. With
        SGD the step size is lowered by as much; Adam's steps do not depend on the size of a gradient. The teacher's
        evaluations are not counted, because nothing of a trial becomes part of a pool.
        """
        small, rounds, counted = self._small(), pilot.spread(self.rounds), teacher.evals.copy()
        streams = [self.stream(t, "trial") for t in rounds]
        sets = [small._start(stream) for stream in streams]
        labels = torch.stack([small._labels(stream) for stream in streams])
        eps = [self.noise.step_size(t, self.rounds) or self.step_size for t in rounds]
        scale = small.rows / self.rows if self.optimizer == "sgd" else 1.0

        def gradients() -> tuple[Sequence[Tensor], Tensor]:
            _, logits, gradient = small._gradients(torch.cat([x.detach() for x in sets]), labels, teacher)
            return gradient.chunk(len(sets)), logits

        shares = pilot.shares_reached(self._optimizer, sets, [e * scale for e in eps], labels, self.steps, gradients)
        teacher.evals = counted
        return [pilot.Trial(e, share) for e, share in zip(eps, shares, strict=True)]

    def _small(self) -> "CAKE":
        """Return a copy of this synthesizer whose sets have only as many rows as a trial needs."""
        small = copy.copy(self)
        small.rows = min(self.rows, max(1, pilot.IMAGES // self.groups))
        return small

    def synthesize(
        self, rounds: range, teacher: Teacher, student: nn.Module | None = None, steer: Steer | None = None
    ) -> Synthetic:
        eps = [self.noise.step_size(t, self.rounds) or self.step_size for t in rounds]
        streams = [self.stream(t) for t in rounds]
        sets = [self._start(stream) for stream in streams]
        labels = torch.stack([self._labels(stream) for stream in streams])
        optimizer = fused(self._optimizer, [{"params": [x], "lr": e} for x, e in zip(sets, eps, strict=True)])
        rates, by_set = torch.tensor(eps, device=labels.device), (len(sets), -1)
        snapshots: list[tuple[Tensor, Tensor]] = []  # images and the teacher's logits for them
        step_meter, metrics = Meter(), {}
        parts = {"sets": sets, "streams": streams, "optimizer": optimizer, "snapshots": snapshots}
        parts |= {"step_meter": step_meter, "metrics": metrics}
        for number in self.loop("step", self.steps, **parts):
            terms, logits, gradients = self.gradients(torch.cat([x.detach() for x in sets]), labels, teacher)
            if number in self.moments:
                snapshots.append((torch.stack([x.detach() for x in sets]), logits.float().unflatten(0, by_set)))
            step_meter.add({name: value.mean() for name, value in terms.items()})
            for x, gradient in zip(sets, gradients.chunk(len(sets)), strict=True):
                x.grad = gradient
            optimizer.step()
            if self.noise.langevin:
                for x, e, stream in zip(sets, eps, streams, strict=True):
                    x.data += (2 * e) ** 0.5 * torch.randn(x.shape, generator=stream, device=x.device)
            if number == self.steps - 1:
                hit = (logits.argmax(1) == labels.view(-1)).float().mean()
                metrics |= {name: value.mean() for name, value in terms.items()}
                metrics |= {"eps": rates.mean(), "hit": hit}
        step_meter.read()  # raises if a term was not finite
        last = torch.stack([x.detach() for x in sets])
        columns = {
            "eps": rates.repeat_interleave(len(self.moments) * labels[0].numel()),
            "target": labels.flatten(1).repeat(1, len(self.moments)).flatten(),
        }
        if not snapshots:  # no logits yet: they are computed later, for the whole pool
            return Synthetic(teacher.denormalize(last.flatten(0, 1)), columns, metrics)
        with torch.no_grad(), self.runtime.autocast():
            snapshots.append((last, teacher.forward_normalized(last.flatten(0, 1)).float().unflatten(0, by_set)))
        images, logits = (torch.stack(parts, 1).flatten(0, 2) for parts in zip(*snapshots, strict=True))
        return Synthetic(teacher.denormalize(images), columns, metrics, logits)

    def start(self, runtime: Runtime, seed: int) -> None:
        super().start(runtime, seed)
        captured = runtime.captured("a step of CAKE", self._gradients)
        self.gradients = captured if self.prior.is_pure else self._gradients

    @property
    def _optimizer(self) -> type[torch.optim.Optimizer]:
        return torch.optim.SGD if self.optimizer == "sgd" else torch.optim.Adam

    def _start(self, stream: torch.Generator) -> Tensor:
        """Draw the noise that a set starts from (B * G, C, H, W)."""
        size = (self.rows * self.groups, *self.shape)
        return torch.randn(size, generator=stream, device=self.runtime.device).requires_grad_()

    def _labels(self, stream: torch.Generator) -> Tensor:
        """Draw target classes (B, G); a row has the first G classes of its own random permutation."""
        chance = torch.rand(self.rows, self.classes, generator=stream, device=self.runtime.device)
        return chance.argsort(1)[:, : self.groups]

    def _gradients(self, images: Tensor, labels: Tensor, teacher: Teacher) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Compute the loss of S sets and its gradient.

        Args:
            images: (S * B * G, C, H, W), in the teacher's normalised space.
            labels: the target classes (S, B, G).

        Returns:
            the weighted terms per set, each (S,); the teacher's logits (S * B * G, C); the gradient for the images.
        """
        images = images.detach().requires_grad_()
        with self.runtime.autocast():
            teacher_pass = self.prior.run_teacher(teacher, images, len(labels))
        terms = self._terms(teacher_pass, labels)
        with self.runtime.gradients():
            (gradient,) = torch.autograd.grad(sum(terms.values()).sum(), images)
        return detached(terms), teacher_pass.logits.detach(), gradient

    def _terms(self, teacher_pass: TeacherPass, labels: Tensor) -> dict[str, Tensor]:
        """Compute the weighted terms per set, each (S,)."""
        logits = teacher_pass.logits
        grouped = logits.view(len(labels), self.rows, self.groups, -1)
        terms = {}
        if self.class_weight > 0:
            terms["class"] = self.class_weight * class_term(grouped, labels)
        if self.contrast_weight > 0:
            pull = contrast_mse(grouped) if self.contrast == "mse" else contrast_snn(grouped, labels, self.temperature)
            terms["contrast"] = self.contrast_weight * pull
        return terms | self.prior(teacher_pass)
