"""CMI: contrastive model inversion (Fang et al., IJCAI 2021, arXiv 2105.08584).

Needs the teacher's outputs, input gradients and BatchNorm layers (for the BN prior, and as features). Uses the student.
"""

import contextlib
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfkd.machine.runtime import seeded
from dfkd.models import Teacher, batch_norms, stage_shapes, stages, watch_channel_means, watch_stage_means
from dfkd.priors import TeacherPass
from dfkd.synthesizers.inversion import Inversion, check_adam
from dfkd.synthesizers.renew import check_renewable, check_std, renew
from dfkd.synthesizers.step import Evaluation, Optimization, Step
from dfkd.training.augment import resized_crop
from dfkd.training.optimizers import fused


def contrastive_term(local: Tensor, whole: Tensor, fresh: int, temperature: float) -> Tensor:
    """Contrastive loss: every local view should be most similar to the global view of its own image.

        CE_i = - log( exp(l_i g_i / T) / sum_j exp(l_i g_j / T) );   mean over the batch's i + mean over the stored i

    Args:
        local, whole: unit vectors l, g (N, D) of the local and the global views, first those of the batch, then stored
            ones; no gradient passes `whole`.
        fresh: number of images in the batch. Without stored vectors the second mean is left out.
        temperature: T.

    Returns:
        a scalar.
    """
    scores = local @ whole.detach().T / temperature
    losses = F.cross_entropy(scores, torch.arange(len(scores), device=scores.device), reduction="none")
    stored = losses[fresh:].mean() if len(losses) > fresh else 0.0
    return losses[:fresh].mean() + stored


class Bank:
    """Stores the features of the newest `size` images, on their device.

    Args:
        size: largest number of rows.
    """

    def __init__(self, size: int):
        self.size, self.rows = size, None

    def add(self, rows: Tensor) -> None:
        self.rows = (rows if self.rows is None else torch.cat([self.rows, rows]))[-self.size :]

    def draw(self, count: int, stream: torch.Generator) -> Tensor | None:
        """Draw at most `count` different rows at random; None if the bank is empty."""
        if self.rows is None:
            return None
        order = torch.randperm(len(self.rows), generator=stream, device=self.rows.device)
        return self.rows[order[:count]]


class CMI(Inversion):
    """Optimises a newly initialised generator and its latent vectors for every batch; a contrastive term makes the
    images differ from all earlier ones.

        one_hot * CE(t, y) + adversarial * adversarial_term (where t and s agree) + contrast * contrastive_term + BN

    The terms are computed on the global view of every image. The contrastive term compares it with a local view (a
    crop). Its features are channel means of feature maps of the teacher, passed through a projection head that is
    trained over all rounds. The features of the last step of every batch are stored.

    Args:
        generator: maps latent vectors (B, generator.latent) to images in [0, 1].
        contrast: weight of the contrastive term; with 0, no features are needed.
        temperature: T of the contrastive term.
        bank: number of images whose features (local and global) are stored.
        negatives: largest number of stored images in the contrastive term of a step.
        crop: smallest area of a local view, as a share of the image, in (0, 1].
        flip: mirror the views at random.
        views: the global view, one of `dfkd.training.augment.augment`; None: shifted, and mirrored if `flip`.
        features: of which feature maps: 'batch_norms' (the inputs of all BatchNorm layers) or 'stages' (the ends of all
            stages but the last, as the public code does for ResNet-34, whose BatchNorm layers have 8,512 channels).
        init_std: standard deviation of the weights of a newly initialised generator (`renew`); None: torch's own.
        lr, betas: options of Adam for the generator, the latent vectors and the head.
        args, kwargs: arguments of `Inversion`.

    Raises:
        ValueError: a number is out of range, features or views is unknown, or the generator cannot be initialised again
            (`renew`).
    """

    def __init__(
        self,
        generator: nn.Module,
        *args: Any,
        one_hot: float = 0.5,
        adversarial: float = 0.5,
        contrast: float = 0.8,
        temperature: float = 0.1,
        bank: int = 40960,
        negatives: int = 4096,
        crop: float = 0.25,
        flip: bool = True,
        views: str | None = None,
        features: str = "batch_norms",
        init_std: float | None = None,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.5, 0.999),
        **kwargs: Any,
    ):
        views = views or ("crop_flip" if flip else "shift")
        super().__init__(*args, one_hot=one_hot, adversarial=adversarial, views=views, **kwargs)
        if contrast < 0 or temperature <= 0 or bank < 1 or negatives < 1:
            raise ValueError(
                f"need contrast >= 0, temperature > 0, bank >= 1 and negatives >= 1, got {contrast}, {temperature}, "
                f"{bank} and {negatives}"
            )
        if not 0 < crop <= 1:
            raise ValueError(f"crop must lie in (0, 1], got {crop}")
        if features not in ("batch_norms", "stages"):
            raise ValueError(f"features must be batch_norms or stages, got '{features}'")
        check_adam(lr, betas)
        check_std(init_std)
        check_renewable(generator)
        self.generator, self.contrast, self.temperature = generator, contrast, temperature
        self.bank_size, self.negatives, self.crop, self.flip = bank, negatives, crop, flip
        self.which_features, self.init_std = features, init_std
        self.lr, self.betas = lr, tuple(betas)

    def check(self, network: nn.Module) -> None:
        super().check(network)
        if self.contrast > 0 and self.which_features == "stages":
            stages(network)
        elif self.contrast > 0 and not batch_norms(network):
            raise ValueError(
                "cmi contrasts what the teacher's BatchNorm layers see, but its network has none; choose a teacher "
                "with BatchNorm (cnn_bn, resnet18, ...), or leave the contrast out (synthesizer.contrast=0 ~prior.bn)"
            )

    def start(self, runtime, seed: int) -> None:
        super().start(runtime, seed)
        runtime.to_device(self.generator).train()
        self.bank, self.head, self.width = Bank(self.bank_size), None, None

    def checkpoint_expect(self, data: dict) -> None:
        """Create the projection head, if the checkpoint has one to restore (`dfkd.resume.state`)."""
        if data["width"] is not None:
            self._make_head(data["width"])

    def begin(self, round: int, labels: Tensor, teacher: Teacher, stream: torch.Generator) -> Optimization:
        renew(self.generator, self.seed, "synthesis", "generator", round, std=self.init_std)
        size = (len(labels), self.generator.latent)
        z = torch.randn(size, generator=stream, device=self.runtime.device).requires_grad_()
        networks = (self.generator,)
        optimizers = [fused(torch.optim.Adam, [*self.generator.parameters(), z], lr=self.lr, betas=self.betas)]
        if self.contrast > 0:
            if self.head is None:
                self._make_head(self._feature_width(teacher))
            networks, optimizers = (self.generator, self.head), [*optimizers, self.head_optimizer]

        def advance() -> None:
            for optimizer in optimizers:
                optimizer.step()

        return Optimization(self.generator, z, advance, networks)

    def draw_for_terms(self, stream: torch.Generator) -> tuple[Tensor | None, ...]:
        """Draw the numbers of the local views, and stored features (None if the bank is empty).

        As long as the bank has fewer than `negatives` rows, every round draws more of them than the last one, so that a
        CUDA graph of a step holds for one round only.
        """
        if self.contrast == 0:
            return ()
        numbers = torch.rand(5, self.batch_size, generator=stream, device=stream.device)
        return numbers, self.bank.draw(self.negatives, stream)

    def remember(self, last: Evaluation) -> None:
        super().remember(last)
        if self.contrast > 0:
            self.bank.add(last.kept["features"].clone())

    def run_teacher(self, teacher: Teacher, images: Tensor) -> TeacherPass:
        if self.contrast == 0:
            return super().run_teacher(teacher, images)
        with self._watch(teacher.net) as means:
            teacher_pass = super().run_teacher(teacher, images)
        self.global_features = torch.cat(means, 1)
        return teacher_pass

    def more_terms(self, step: Step) -> dict[str, Tensor]:
        if self.contrast == 0:
            return {}
        numbers, stored = step.drawn
        parts = resized_crop(step.images.float(), self.crop, self.flip, numbers)
        with self.runtime.autocast(), self._watch(step.teacher.net) as means:
            step.teacher(parts)
        local, whole = torch.cat(means, 1), self.global_features
        step.kept["features"] = torch.cat([local, whole], 1).detach()
        if stored is not None:
            old_local, old_whole = stored.chunk(2, 1)
            local, whole = torch.cat([local, old_local]), torch.cat([whole, old_whole])
        local, whole = F.normalize(self.head(torch.cat([local, whole])), dim=1).chunk(2)
        return {"contrast": self.contrast * contrastive_term(local, whole, len(step.images), self.temperature)}

    def _watch(self, net: nn.Module) -> contextlib.AbstractContextManager[list[Tensor]]:
        """Context manager: records the features of every image in forward passes, as channel means (B, D) per map."""
        return watch_stage_means(net) if self.which_features == "stages" else watch_channel_means(net)

    def _feature_width(self, teacher: Teacher) -> int:
        if self.which_features == "stages":
            return sum(channels for channels, *_ in stage_shapes(teacher.net, teacher.shape)[:-1])
        return sum(layer.num_features for layer in batch_norms(teacher.net))

    def _make_head(self, width: int) -> None:
        """Create the projection head, width -> width -> 256, and its optimiser."""
        self.width = width
        with seeded(self.seed, "synthesis", "head"):
            self.head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 256))
        self.head.to(self.runtime.device)
        self.head_optimizer = fused(torch.optim.Adam, self.head.parameters(), lr=self.lr, betas=self.betas)
