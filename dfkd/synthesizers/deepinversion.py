"""DeepInversion and Adaptive DeepInversion (Yin et al., Dreaming to distill, CVPR 2020, arXiv 1912.08795).

Both need the teacher's outputs, input gradients and BatchNorm statistics (the BN prior is optional). The adaptive form
uses the student. Pixels are optimised in the teacher's normalised space.
"""

from typing import Any

import torch
from torch import Tensor, nn

from dfkd.machine.capture import is_ours
from dfkd.models import Teacher
from dfkd.priors import Prior
from dfkd.synthesizers.inversion import Inversion, check_adam, steer_weights
from dfkd.synthesizers.step import Optimization, Step
from dfkd.training.optimizers import fused


def jensen_shannon(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 3.0) -> Tensor:
    """1/2 KL(M || P) + 1/2 KL(M || Q) of every image (B,), with the arguments of KL in the order of the public code.

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
    """1 - clamp(mean_i w_i JSD_i, 0, 1), which is lowest where student and teacher disagree.

    Args:
        divergence: JSD of every image (B,).
        weights: (B,), in [0, 1]. The mean divides by B, whatever the weights.
    """
    return 1 - (weights * divergence).mean().clamp(0, 1)


def draw_moves(count: int, pixels: int, mirror: bool, stream: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Draw `count` random moves of a batch: down, right and mirrored, each (count,).

    Shifts are uniform in [-pixels, pixels]; with `mirror`, half of the moves are mirrored.
    """
    shifts = torch.randint(-pixels, pixels + 1, (count, 2), generator=stream, device=stream.device)
    mirrored = torch.randint(2, (count, 1), generator=stream, device=stream.device) * mirror
    return *shifts.unbind(1), mirrored[:, 0].bool()


def moved_indices(height: int, width: int, down: Tensor, right: Tensor, mirrored: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows (moves, height) and columns (moves, width) from which moves take the pixels of an image.

    Images are shifted cyclically and, where `mirrored`, then mirrored left to right.
    """
    rows, columns = torch.arange(height, device=down.device), torch.arange(width, device=down.device)
    columns = torch.where(mirrored[:, None], columns.flip(0), columns)
    return (rows - down[:, None]) % height, (columns - right[:, None]) % width


def move(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return images (B, C, H, W) made of these rows (H,) and columns (W,) of the given ones."""
    return images.index_select(2, rows).index_select(3, columns)


class DeepInversion(Inversion):
    """Optimises the pixels of each batch from N(0, 1) by Adam; an offline method.

        one_hot * CE(t, y) + weighted priors (BN 10, TV 1e-3, L2 0)

    computed on the batch rolled by up to `jitter` pixels and, with probability 1/2, mirrored as a whole. The iterate
    with the lowest loss is returned. (In the public code 'best' is an alias of the last iterate.)

    Args:
        shape: (C, H, W).
        box: range of valid pixel values, or None if there is none.
        jitter: largest shift in pixels.
        flip: mirror batches at random.
        clip: clip the pixels to the box after every step. The pool then holds 8-bit images, otherwise floats.
        lr, betas: options of Adam; lr is in units of the images' standard deviation.
        others: arguments of `Inversion`.

    Raises:
        ValueError: a number is out of range, or clip is set and the box is not [0, 1].
    """

    online = takes_term = False  # all defenses share the pool, so it must not depend on one
    needs_box = False  # needed only with clip, which the constructor checks

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

    def begin(self, round: int, labels: Tensor, teacher: Teacher, stream: torch.Generator) -> Optimization:
        x = torch.randn(len(labels), *self.shape, generator=stream, device=self.runtime.device).requires_grad_()
        self.moves = moved_indices(*self.shape[1:], *draw_moves(self.steps, self.jitter, self.flip, stream))
        optimizer = fused(torch.optim.Adam, [x], lr=self.lr, betas=self.betas)
        box = torch.tensor([0.0, 1.0], device=x.device).view(2, 1, 1, 1)
        low, high = (teacher.normalize(end) for end in box.split(1))

        def advance() -> None:
            optimizer.step()
            if self.clip:
                x.data.clamp_(low, high)

        return Optimization(teacher.denormalize, x, advance, optimizer=optimizer)

    def draw_for_views(self, number: int, teacher: Teacher, stream: torch.Generator) -> tuple[Tensor, ...]:
        rows, columns = self.moves
        return rows[number], columns[number]

    def view(self, images: Tensor, *drawn: Tensor) -> Tensor:
        return move(images, *drawn)

    def to_pool_format(self, images: Tensor) -> Tensor:
        return super().to_pool_format(images) if self.clip else images


class AdaptiveDeepInversion(DeepInversion):
    """DeepInversion with a term that seeks disagreement with the student; an online method with a growing pool.

        loss of DeepInversion + alpha * (1 - clamp(mean JSD(t, s), 0, 1))

    Args:
        alpha: weight of the competition term.
        temperature: T of the softmaxes in this term.
        args, kwargs: arguments of `DeepInversion`.

    Raises:
        ValueError: a number is out of range.
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

    def asks_steer(self, warming_up: bool) -> bool:
        return is_ours(type(self))

    def more_terms(self, step: Step) -> dict[str, Tensor]:
        divergence = jensen_shannon(self.answers(step), step.teacher_pass.logits, self.temperature)
        return {"competition": self.alpha * competition_term(divergence, steer_weights(step))}
