"""DeepInversion and Adaptive DeepInversion (Yin et al., Dreaming to distill, CVPR 2020, arXiv 1912.08795).

Need the teacher's outputs, input gradients and BatchNorm statistics (the BN prior can be dropped). The adaptive form
looks at the student. Pixels are optimised in the teacher's normalised space.
"""

from typing import Any

import torch
from torch import Tensor, nn

from dfkd.models import Teacher
from dfkd.priors import Prior
from dfkd.synthesizers.inversion import Inversion, Step, Work, check_adam, steer_weights
from dfkd.training.optimizers import fused


def jensen_shannon(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 3.0) -> Tensor:
    """1/2 KL(M || P) + 1/2 KL(M || Q) of every image (B,), as the public code orders the arguments.

    P = softmax(t / T), Q = softmax(s / T), M = (P + Q) / 2, all clamped to [0.01, 0.99].

    Args:
        student_logits, teacher_logits: (B, C); gradients pass both.
        temperature: T.
    """
    p = (teacher_logits / temperature).softmax(1)
    q = (student_logits / temperature).softmax(1)
    m = (0.5 * (p + q)).clamp(0.01, 0.99)
    p, q = p.clamp(0.01, 0.99), q.clamp(0.01, 0.99)
    return 0.5 * (m * (m / p).log() + m * (m / q).log()).sum(1)


def competition_term(divergence: Tensor, weights: Tensor) -> Tensor:
    """1 - clamp(mean_i w_i JSD_i, 0, 1): lowest where the student disagrees.

    Args:
        divergence: JSD of every image (B,).
        weights: (B,), in [0, 1]. The mean is over the whole batch, whatever the weights.
    """
    return 1 - (weights * divergence).mean().clamp(0, 1)


def draw_moves(count: int, pixels: int, mirror: bool, stream: torch.Generator) -> list[tuple[int, int, bool]]:
    """How `count` batches are to be moved: (down, right, mirrored), up to `pixels` either way, half of them mirrored.

    All of a round at once: a draw from a GPU makes it wait.
    """
    shifts = torch.randint(-pixels, pixels + 1, (count, 2), generator=stream, device=stream.device)
    mirrored = torch.randint(2, (count, 1), generator=stream, device=stream.device) * mirror
    return [(down, right, bool(side)) for down, right, side in torch.cat([shifts, mirrored], 1).tolist()]


def move(images: Tensor, down: int, right: int, mirrored: bool) -> Tensor:
    """The whole batch (B, C, H, W) shifted cyclically, and mirrored left to right."""
    images = images.roll((down, right), (2, 3))
    return images.flip(3) if mirrored else images


class DeepInversion(Inversion):
    """Batches of pixels, each optimised from N(0, 1) by Adam; an offline method.

        one_hot * CE(t, y) + weighted priors (BN 10, TV 1e-3, L2 0)

    of the batch rolled by up to `jitter` pixels and, with a chance of a half, mirrored as a whole. The iterate with
    the lowest loss is kept (the public code's 'best' is an alias of the last one).

    Args:
        shape: (C, H, W).
        box: range of valid pixels, or None where there is none.
        jitter: pixels.
        flip: mirror batches.
        clip: bring the pixels back into the box after every step; the pool is then 8-bit, else float.
        lr, betas: of Adam, in units of the images' standard deviation.
        others: of `Inversion`.

    Raises:
        ValueError: a number out of range, or clip without a box of [0, 1].
    """

    online = takes_term = False  # the pool is shared by all defenses
    needs_box = False  # only to clip

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int,
        prior: Prior,
        rounds: int,
        steps: int,
        batch_size: int,
        one_hot: float = 1.0,
        jitter: int = 2,
        flip: bool = True,
        clip: bool = True,
        lr: float = 0.1,
        betas: tuple[float, float] = (0.5, 0.99),
        box: tuple[float, float] | None = None,
    ):
        super().__init__(classes, prior, rounds, steps, batch_size, one_hot)
        if not 0 <= jitter < min(shape[1:]):
            raise ValueError(f"jitter must lie in [0, {min(shape[1:])}) for images of {shape[1:]}, got {jitter}")
        check_adam(lr, betas)
        if clip and (box is None or tuple(box) != (0.0, 1.0)):
            raise ValueError(f"clip=true needs images in [0, 1], but their range is {box}; set clip=false")
        self.shape, self.jitter, self.flip, self.clip = shape, jitter, flip, clip
        self.lr, self.betas = lr, tuple(betas)
        self.independent = not prior.memories

    def begin(self, round: int, labels: Tensor, teacher: Teacher, stream: torch.Generator) -> Work:
        x = torch.randn(len(labels), *self.shape, generator=stream, device=self.runtime.device).requires_grad_()
        self.moves = draw_moves(self.steps, self.jitter, self.flip, stream)
        optimizer = fused(torch.optim.Adam, [x], lr=self.lr, betas=self.betas)
        box = torch.tensor([0.0, 1.0], device=x.device).view(2, 1, 1, 1)
        low, high = (teacher.normalize(end) for end in box.split(1))

        def advance() -> None:
            optimizer.step()
            if self.clip:
                x.data.clamp_(low, high)

        return Work(lambda: teacher.denormalize(x), [x], advance, optimizer=optimizer)

    def augmented(self, images: Tensor, stream: torch.Generator) -> Tensor:
        return move(images, *self.moves.pop(0))

    def keep(self, images: Tensor) -> Tensor:
        return super().keep(images) if self.clip else images


class AdaptiveDeepInversion(DeepInversion):
    """DeepInversion that competes with the student; an online method with a growing pool.

        ... + alpha * (1 - clamp(mean JSD(t, s), 0, 1))

    Args:
        alpha: weight of the competition.
        temperature: of both softmaxes in it.
        args, kwargs: the arguments of `DeepInversion`.

    Raises:
        ValueError: a number out of range.
    """

    online = takes_term = True

    def __init__(self, *args: Any, alpha: float = 0.2, temperature: float = 3.0, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if alpha < 0 or temperature <= 0:
            raise ValueError(f"need alpha >= 0 and temperature > 0, got {alpha} and {temperature}")
        self.alpha, self.temperature = alpha, temperature

    def check(self, network: nn.Module) -> None:
        if self.alpha == 0:
            raise ValueError("alpha=0 leaves no competition with the student; take synthesizer=deepinversion")
        super().check(network)

    def more_terms(self, step: Step) -> dict[str, Tensor]:
        divergence = jensen_shannon(self.answers(step), step.view.logits, self.temperature)
        return {"competition": self.alpha * competition_term(divergence, steer_weights(step))}
