"""Students that differ only in their seeds, trained together in one program: one small network cannot fill a GPU."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.modules.batchnorm import _BatchNorm

from dfkd.distill.loop import Distillation
from dfkd.errors import CannotTrainTogether
from dfkd.machine.capture import detached
from dfkd.pool import Pool
from dfkd.training.meter import Meter


class SiblingDistillation:
    """K distillations from the same finished pool, trained side by side. Each gives the result of training alone, up to
    rounding.

    The K students' parameters of the same name are stacked in one tensor (K, ...), and each student's parameter is a
    view of it. Validation, saving and the defense's `finish` therefore handle each student as usual. A step draws each
    student's batch and views from that student's own random streams, and computes all K losses by `torch.func.vmap`:
    convolutions become grouped convolutions and BatchNorm gets K times the channels. SGD and Adam are elementwise and
    need no change.

    Args:
        distillations: K of them, with the same teacher, pool and recipe; only their seeds differ.

    Raises:
        CannotTrainTogether: during training, torch cannot run the networks as one program, or runs out of memory.
        NonFiniteLoss: a loss of one student became NaN or infinite; carries that student's last finite weights.
    """

    def __init__(self, distillations: list[Distillation]):
        self.distillations, self.trainers = distillations, [one.trainer for one in distillations]
        objectives = [trainer.objective for trainer in self.trainers]
        self.template = objectives[0]  # vmap calls it with the tensors of all students (functional_call)
        self.parameters = {
            name: nn.Parameter(stacked([objective.get_parameter(name).detach() for objective in objectives]))
            for name, _ in self.template.named_parameters()
        }
        self.buffers = {
            name: stacked([objective.get_buffer(name) for objective in objectives])
            for name, _ in self.template.named_buffers()
        }
        for distillation in distillations:
            distillation.students, distillation.clock = len(distillations), distillations[0].clock
        total = (distillations[0].rounds - distillations[0].warm_up) * distillations[0].steps
        first, step = self.trainers[0], self._gradients
        self.stepper = first.student.recipe.make(self.parameters.values(), total)
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
                raise CannotTrainTogether(f"torch makes no program of them ({str(error).splitlines()[0]})") from error
            meter.add(terms)
        if not tied:
            self._tie()
        for index, trainer in enumerate(self.trainers):
            trainer.meter.take(meter, index)

    def _tie(self) -> bool:
        """Make each student's parameters and buffers views of the stacked tensors. Returns True."""
        for index, trainer in enumerate(self.trainers):
            for name, parameter in trainer.objective.named_parameters():
                parameter.data = self.parameters[name].data[index]
            for name, buffer in trainer.objective.named_buffers():
                buffer.data = self.buffers[name][index]
        return True

    def _load_batches(self, pool: Pool) -> list[Tensor]:
        """Return the next batch of every student: images (K, B, C, H, W), the teacher's logits (K, B, classes), and
        whether each image is fragile (K, B), bool."""
        index = torch.stack([trainer.next_index(pool) for trainer in self.trainers])  # (K, B)
        if self.trainers[0].student.augment == "none":
            batch = self.trainers[0].load_batch(pool, index.flatten())
            return [tensor.contiguous().unflatten(0, index.shape) for tensor in batch]
        views = [trainer.load_batch(pool, batch) for trainer, batch in zip(self.trainers, index, strict=True)]
        return [stacked(tensors) for tensors in zip(*views, strict=True)]

    def _gradients(self, *batches: Tensor) -> tuple[dict[str, Tensor], list[Tensor | None]]:
        """Compute the loss terms of all students, each (K,), and the gradients of the stacked parameters.

        Args:
            batches: see `_load_batches`.
        """
        with norms_for_vmap(self.template):
            terms = vmap(self._terms)(self.parameters, self.buffers, *batches)
        parameters = list(self.parameters.values())
        with self.trainers[0].runtime.gradients():
            gradients = torch.autograd.grad(sum(terms.values()).sum(), parameters, allow_unused=True)
        return detached(terms), list(gradients)

    def _terms(self, parameters: dict, buffers: dict, *batch: Tensor) -> dict[str, Tensor]:
        """Compute the loss terms of one student from its parameters, buffers and batch."""
        return functional_call(self.template, (parameters, buffers), batch)


def stacked(tensors: Sequence[Tensor]) -> Tensor:
    """Stack the tensors (...) of K students, (K, ...), in torch's default memory format."""
    return torch.stack([tensor.contiguous() for tensor in tensors])


@contextlib.contextmanager
def norms_for_vmap(net: nn.Module) -> Iterator[None]:
    """Context manager: BatchNorm layers get inputs of a form in which vmap can run them on a GPU, whatever the layers
    before them give: float32, as their statistics are, because vmap drops the layers' parameters, without which torch
    allows no other precision; and in the default memory format, because vmap cannot ask for channels_last."""
    layers = [module for module in net.modules() if isinstance(module, _BatchNorm)]
    handles = [layer.register_forward_pre_hook(_for_vmap) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _for_vmap(_layer: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    """Convert an input (B, C, ...) to float32, and copy it if its channels lie next to each other, as in channels_last.
    `contiguous` is not enough: where all other sizes are 1, it returns such a tensor as it is."""
    h = inputs[0].float()
    return (h.clone(memory_format=torch.contiguous_format) if h.dim() > 2 and h.stride(1) == 1 else h,)
