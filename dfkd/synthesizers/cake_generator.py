"""CAKE with a generator (Braun et al., AISTATS 2024, arXiv 2306.02090): the public code's neural-generator variant.

Needs the teacher's outputs and input gradients. Does not use the student.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfkd.models import Teacher
from dfkd.priors import Prior
from dfkd.synthesizers.base import Steer, Synthesizer, Synthetic
from dfkd.synthesizers.cake_terms import class_term, contrast_mse
from dfkd.synthesizers.inversion import check_adam, to_bytes
from dfkd.training.meter import Meter
from dfkd.training.optimizers import fused


def repel_term(first: Tensor, second: Tensor) -> Tensor:
    """mean_rows sum_images 1 / MSE(x(z1, y), x(z2, y)): different latent vectors should give different images.

    Args:
        first, second: (B, G, C, H, W), the images x(z1, y) and x(z2, y) of B rows and the G classes y of a row.
    """
    distance = (first - second).square().flatten(2).mean(2)
    return (1 / (distance + 1e-8)).sum(1).mean()


class CAKEGenerator(Synthesizer):
    """Trains a class-conditional generator of noisy images near the teacher's decision boundary; an offline method.

        class_weight * class_term + contrast_weight * contrast_mse + repel_weight * repel_term + weighted priors

    A row has two latent vectors z1, z2 and two different classes a, b: x(z1, a), x(z1, b), x(z2, a), x(z2, b). Images
    of the same z are pulled together in the teacher's logits; images of the same class are pushed apart in pixel space.
    The first call of `synthesize` trains the generator; every round then samples images from it.

    Args:
        generator: maps (B, generator.latent), a latent vector concatenated with a one-hot class, to images in [0, 1].
        classes: number of classes of the teacher, at least 2.
        prior: weighted priors.
        rounds: number of rounds.
        training_steps: training steps of the generator.
        batch_size: images per training step, four per row.
        images: images per round.
        class_weight, contrast_weight, repel_weight: weights of the terms; a term of weight 0 is skipped.
        lr, betas: options of Adam.
        box: range of valid pixel values; the pool then holds 8-bit images. None (points): the pool holds floats.

    Raises:
        ValueError: a number is out of range, there are fewer than two classes, or generator.latent <= classes.
    """

    columns = ("target",)

    def __init__(
        self,
        generator: nn.Module,
        classes: int,
        prior: Prior,
        rounds: int,
        training_steps: int,
        batch_size: int,
        images: int,
        class_weight: float = 10.0,
        contrast_weight: float = 1.0,
        repel_weight: float = 1.0,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        box: tuple[float, float] | None = None,
    ):
        super().__init__(rounds)
        if training_steps < 1 or images < 1 or batch_size < 4 or batch_size % 4:
            raise ValueError(
                f"need training_steps >= 1, images >= 1 and a batch_size divisible by 4 (two latents times two "
                f"classes), got {training_steps}, {images} and {batch_size}"
            )
        if min(class_weight, contrast_weight, repel_weight) < 0:
            raise ValueError(
                f"weights must not be negative, got {class_weight} (class), {contrast_weight} (contrast), "
                f"{repel_weight} (repel)"
            )
        check_adam(lr, betas)
        if classes < 2:
            raise ValueError(f"cake_generator needs pairs of different classes, but there are {classes} classes")
        if generator.latent <= classes:
            raise ValueError(
                f"the generator takes {generator.latent} numbers, {classes} of which tell the class: none are left for "
                f"the latent vector; raise synthesizer.generator.latent"
            )
        self.generator, self.classes, self.prior = generator, classes, prior
        self.training_steps, self.rows, self.images = training_steps, batch_size // 4, images
        self.class_weight, self.contrast_weight, self.repel_weight = class_weight, contrast_weight, repel_weight
        self.lr, self.betas = lr, tuple(betas)
        self.to_pool_format = (lambda images: images) if box is None else to_bytes

    def check(self, network: nn.Module) -> None:
        if not self.class_weight:
            raise ValueError("class_weight=0 leaves the generator without any class to make")
        self.prior.check(network)

    def start(self, runtime, seed: int) -> None:
        super().start(runtime, seed)
        self.prior.start()
        runtime.to_device(self.generator)
        self.trained = False

    def synthesize(
        self, rounds: range, teacher: Teacher, student: nn.Module | None = None, steer: Steer | None = None
    ) -> Synthetic:
        metrics = {} if self.trained else self._train(teacher)
        self.trained = True
        stream = self.stream(rounds.start)
        labels = torch.randint(self.classes, (self.images,), generator=stream, device=self.runtime.device)
        z = self._latent(self.images, stream)
        with torch.no_grad(), self.runtime.autocast():
            images = self._generate(z, labels).float()
        return Synthetic(self.to_pool_format(images), {"target": labels}, metrics)

    def _train(self, teacher: Teacher) -> dict[str, Tensor]:
        """Train the generator and return the terms of the last step."""
        stream, watch = self.stream(0, "training"), Meter()
        parameters = list(self.generator.train().parameters())
        optimizer = fused(torch.optim.Adam, parameters, lr=self.lr, betas=self.betas)
        last: dict[str, Tensor] = {}
        parts = {"optimizer": optimizer, "watch": watch, "stream": stream, "last": last}
        for _ in self.loop("training step", self.training_steps, **parts):
            terms = self._terms(teacher, stream)
            last |= {name: value.detach() for name, value in terms.items()}
            watch.add(terms)
            with self.runtime.gradients():
                gradients = torch.autograd.grad(sum(terms.values()), parameters)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()
        watch.read()  # raises if a term was not finite
        self.generator.eval()
        return last

    def _terms(self, teacher: Teacher, stream: torch.Generator) -> dict[str, Tensor]:
        """Compute the weighted terms of one training step, each a scalar."""
        rows = self.rows
        chance = torch.rand(rows, self.classes, generator=stream, device=self.runtime.device)
        pair = chance.argsort(1)[:, :2]  # (B, 2), the two classes of a row
        z = self._latent(2 * rows, stream)  # first z1 of all rows, then z2
        labels = pair.repeat(2, 1)  # (2 B, 2)
        with self.runtime.autocast():
            images = self._generate(z.repeat_interleave(2, 0), labels.flatten())
            teacher_pass = self.prior.run_teacher(teacher, teacher.normalize(images))
        grouped = teacher_pass.logits.view(1, 2 * rows, 2, -1)
        terms = {"class": self.class_weight * class_term(grouped, labels[None]).sum()}
        if self.contrast_weight > 0:
            terms["contrast"] = self.contrast_weight * contrast_mse(grouped).sum()
        if self.repel_weight > 0:
            first, second = images.float().view(2, rows, 2, *images.shape[1:])
            terms["repel"] = self.repel_weight * repel_term(first, second)
        terms |= {name: value.sum() for name, value in self.prior(teacher_pass).items()}
        self.prior.remember(teacher_pass)
        return terms

    def _generate(self, z: Tensor, labels: Tensor) -> Tensor:
        return self.generator(torch.cat([z, F.one_hot(labels, self.classes).to(z.dtype)], 1))

    def _latent(self, count: int, stream: torch.Generator) -> Tensor:
        length = self.generator.latent - self.classes
        return torch.randn(count, length, generator=stream, device=self.runtime.device)
