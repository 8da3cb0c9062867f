"""Students that differ only in their seeds, trained together: one small network cannot fill a GPU."""

import functools
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from dfkd.distill.loop import Distillation
from dfkd.errors import CannotTrainTogether
from dfkd.machine.graphs import side_by_side
from dfkd.pool import Pool
from dfkd.training.meter import Meter


class SiblingDistillation:
    """K distillations from the same finished pool, trained side by side. Each gives the result of training alone, up to
    rounding.

    A step draws each student's batch and views from that student's own random streams, and computes the gradients of
    each student as its own step does. On a GPU these K computations are branches of one CUDA graph, which run beside
    each other. The K students' parameters of the same name are stacked in one tensor (K, ...), and each student's
    parameter is a view of it: SGD and Adam are elementwise, and take one step for all. Validation, saving and the
    defense's `finish` handle each student as usual.

    Args:
        distillations: K of them, with the same teacher, pool and recipe; only their seeds differ.

    Raises:
        CannotTrainTogether: during training, torch runs out of memory, or reports another error.
        NonFiniteLoss: a loss of one student became NaN or infinite; carries that student's last finite weights.
    """

    def __init__(self, distillations: list[Distillation]):
        self.distillations, self.trainers = distillations, [one.trainer for one in distillations]
        each = zip(*(trainer.stepper.parameters for trainer in self.trainers), strict=True)
        self.parameters = [nn.Parameter(stacked([p.detach() for p in same])) for same in each]
        for distillation in distillations:
            distillation.students, distillation.clock = len(distillations), distillations[0].clock
        total = (distillations[0].rounds - distillations[0].warm_up) * distillations[0].steps
        first, step = self.trainers[0], self._gradients
        self.stepper = first.student.recipe.make(self.parameters, total)
        self.gradients = first.runtime.captured("a step of the students", step) if first.can_capture else step
        for trainer in self.trainers[1:]:
            trainer.share_views(first)

    def run(
        self, after_round: Callable[[dict], None] = lambda shown: None, rounds: Iterable[int] | None = None
    ) -> None:
        """As `Distillation.run`; `after_round` gets the metrics of the first student."""
        first = self.distillations[0]
        for number in range(first.rounds) if rounds is None else rounds:
            with first.clock("distill"):
                self.train(first.pool, first.steps)
            shown, *_ = [distillation.log_round(number) for distillation in self.distillations]
            after_round(shown)
        for distillation in self.distillations:
            distillation.finish()

    def train(self, pool: Pool, steps: int) -> None:
        """As `Trainer.train`, for all K students."""
        for trainer in self.trainers:
            trainer.begin()
        meter, tied = Meter((len(self.distillations),)), False
        for _ in self.trainers[0].loop("student step", steps, meter=meter):
            tied = tied or self._tie()  # not before the loop: its first iteration may restore a checkpoint
            try:
                terms, gradients = self.gradients(*self._load_batches(pool))
                self.stepper.apply(gradients)
            except RuntimeError as error:
                raise CannotTrainTogether(f"torch cannot train them together ({str(error).splitlines()[0]})") from error
            meter.add(terms)
        if not tied:
            self._tie()
        for index, trainer in enumerate(self.trainers):
            trainer.meter.take(meter, index)

    def _tie(self) -> bool:
        """Make each student's parameters views of the stacked tensors. Returns True."""
        for index, trainer in enumerate(self.trainers):
            for own, all_of_them in zip(trainer.stepper.parameters, self.parameters, strict=True):
                own.data = all_of_them.data[index]
        return True

    def _load_batches(self, pool: Pool) -> list[Tensor]:
        """Return the next batch of every student: images (K, B, C, H, W), the teacher's logits (K, B, classes), and
        whether each image is fragile (K, B), bool."""
        index = torch.stack([trainer.next_index(pool) for trainer in self.trainers])  # (K, B)
        if self.trainers[0].student.augment == "none":
            batch = self.trainers[0].load_batch(pool, index.flatten())
            return [tensor.unflatten(0, index.shape) for tensor in batch]
        views = [trainer.load_batch(pool, batch) for trainer, batch in zip(self.trainers, index, strict=True)]
        return [stacked(tensors) for tensors in zip(*views, strict=True)]

    def _gradients(self, *batches: Tensor) -> tuple[dict[str, Tensor], list[Tensor | None]]:
        """Compute the loss terms of all students, each (K,), and the gradients of the stacked parameters.

        Args:
            batches: see `_load_batches`.
        """
        own = zip(self.trainers, zip(*batches, strict=True), strict=True)
        steps = [functools.partial(trainer.compute_gradients, *batch) for trainer, batch in own]
        terms, gradients = zip(*side_by_side(self.trainers[0].runtime.device, steps), strict=True)
        parameters = self.trainers[0].stepper.parameters
        same = zip(parameters, zip(*gradients, strict=True), strict=True)
        together = [None if each[0] is None else stacked(each, parameter) for parameter, each in same]
        return {name: torch.stack([one[name] for one in terms]) for name in terms[0]}, together


def stacked(tensors: Sequence[Tensor], like: Tensor | None = None) -> Tensor:
    """Stack the tensors (...) of K students, (K, ...). Each part of the result has the memory format of `like`, or of
    the first tensor: convolutions are faster with weights and images in channels_last."""
    like = tensors[0] if like is None else like
    last = like.dim() == 4 and not like.is_contiguous() and like.is_contiguous(memory_format=torch.channels_last)
    if not last:
        return torch.stack([tensor.contiguous() for tensor in tensors])
    return torch.stack([tensor.movedim(1, -1).contiguous() for tensor in tensors]).movedim(-1, 2)
