"""One step in the optimisation of a batch of images: what is optimised, what the loss is made of, what is computed."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from dfkd.models import Teacher
from dfkd.priors import TeacherPass
from dfkd.synthesizers.base import Steer


@dataclass
class Optimization:
    """The optimisation of one batch.

    Attributes:
        make: source -> images (B, C, H, W), nominally in [0, 1]: a generator, for instance.
        source: what the images are made of: latent vectors, label embeddings, pixels. It is optimised if it requires
            gradients.
        advance: takes one step, with the gradients in `.grad` of the parameters.
        networks: networks whose parameters are optimised.
        finish: called once, after the last step.
        optimizer: the optimizer, if it is all that `advance` changes besides the parameters. The run can then be
            stopped and resumed between two steps. Otherwise None.
    """

    make: Callable[[Tensor], Tensor]
    source: Tensor
    advance: Callable[[], None]
    networks: tuple[nn.Module, ...] = ()
    finish: Callable[[], None] = lambda: None
    optimizer: torch.optim.Optimizer | None = None

    @property
    def parameters(self) -> list[Tensor]:
        """The tensors that are optimised."""
        return optimised(self.networks, self.source)

    def places(self) -> tuple[int, ...]:
        """Return where the tensors of the networks lie in memory. A recorded step holds for these places."""
        return tuple(tensor.data_ptr() for net in self.networks for tensor in tensors_of(net))


def tensors_of(net: nn.Module) -> list[Tensor]:
    """Return the parameters and buffers of a network."""
    return [*net.parameters(), *net.buffers()]


def optimised(networks: tuple[nn.Module, ...], source: Tensor) -> list[Tensor]:
    """Return the parameters of networks, and the source if it requires gradients."""
    return [*(p for net in networks for p in net.parameters()), *([source] if source.requires_grad else [])]


@dataclass
class Step:
    """The inputs of the loss terms of one step.

    Attributes:
        images: images of this step (B, C, H, W), nominally in [0, 1], differentiable in the optimised tensors.
        views: `images` or an augmentation of them, the input of teacher and student.
        teacher_pass: the teacher's logits and statistics for `views` (`dfkd.priors.TeacherPass`).
        labels: target classes (B,).
        teacher, student, steer: as in `Synthesizer.synthesize`; the student is in evaluation mode.
        warming_up: whether this is one of the first rounds, without the adversarial term.
        drawn: the random numbers of `Inversion.draw_for_terms`.
        kept: tensors that `Inversion.remember` needs, by name; `more_terms` may add to them.
    """

    images: Tensor
    views: Tensor
    teacher_pass: TeacherPass
    labels: Tensor
    teacher: Teacher
    student: nn.Module | None
    steer: Steer | None
    warming_up: bool
    drawn: tuple[Tensor | None, ...]
    kept: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class Evaluation:
    """What a step has computed. If the step is a CUDA graph, the next one overwrites it (`CapturedStep`).

    Attributes:
        terms, total: the terms of the loss by name, and their sum; scalars.
        images: images of this step (B, C, H, W), float32.
        gradients: of the total loss, for each of the optimised tensors.
        teacher_pass, kept: as in `Step`.
    """

    terms: dict[str, Tensor]
    total: Tensor
    images: Tensor
    gradients: list[Tensor]
    teacher_pass: TeacherPass
    kept: dict[str, Tensor]
