"""Students alike, of different seeds, trained on one pool in one program: a small network alone leaves a GPU idle."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from dfkd.distill.loop import Distillation
from dfkd.errors import NotTogether
from dfkd.pool import Pool
from dfkd.training.meter import Meter


class Replicas:
    """Some distillations from the same finished pool side by side, each as it would be by itself, up to rounding.

    All parameters of a name lie in one tensor (K, ...), of which those of the K students are views: their validation,
    their weights and what a defense does with them in the end are those of any student. A step draws every student's
    batch and views from its own streams, and takes the steps of all by `torch.func.vmap`: convolutions become grouped
    ones, BatchNorm sees more channels, and SGD and Adam go by elements anyway.

    Args:
        works: for the same teacher, pool and recipe; only their seeds differ.

    Raises:
        NotTogether: in training, when torch cannot make one program of the networks, or has too little memory for it.
        NonFiniteLoss: of any of them, with the state of that one.
    """

    def __init__(self, works: list[Distillation]):
        self.works, self.trainers = works, [work.trainer for work in works]
        alike = [trainer.objective for trainer in self.trainers]
        self.one = alike[0]  # stands for each of them, with other tensors in it
        self.parameters = {
            name: nn.Parameter(torch.stack([objective.get_parameter(name).detach() for objective in alike]))
            for name, _ in self.one.named_parameters()
        }
        self.buffers = {
            name: torch.stack([objective.get_buffer(name) for objective in alike])
            for name, _ in self.one.named_buffers()
        }
        for work in works:
            work.students, work.clock = len(works), works[0].clock
        total = (works[0].rounds - works[0].warm_up) * works[0].steps
        self.stepper = self.trainers[0].student.recipe.make(self.parameters.values(), total)

    def run(
        self, after_round: Callable[[dict], None] = lambda shown: None, rounds: Iterable[int] | None = None
    ) -> None:
        """As `Distillation.run`; the numbers to show are the first one's."""
        first = self.works[0]
        for number in range(first.rounds) if rounds is None else rounds:
            with first.clock("distill"):
                self.train(first.pool, first.steps)
            shown, *_ = [work.review(number) for work in self.works]
            after_round(shown)
        for work in self.works:
            work.finish()

    def train(self, pool: Pool, steps: int) -> None:
        """As `Trainer.train`, for all of them."""
        for trainer in self.trainers:
            trainer.begin()
        meter, tied = Meter((len(self.works),)), False
        for _ in self.trainers[0].loop("student step", steps, meter=meter):
            tied = tied or self._tie()  # not before the loop: a checkpoint may have been put back at its beginning
            try:
                terms = vmap(self._terms)(self.parameters, self.buffers, *self._views(pool))
                self.stepper.step(sum(terms.values()).sum())
            except RuntimeError as error:
                raise NotTogether(f"torch makes no program of them ({str(error).splitlines()[0]})") from error
            meter.add(terms)
        if not tied:
            self._tie()
        for place, trainer in enumerate(self.trainers):
            trainer.meter.take(meter, place)

    def _tie(self) -> bool:
        """Let the students' parameters and buffers be views of the common ones."""
        for place, trainer in enumerate(self.trainers):
            for name, parameter in trainer.objective.named_parameters():
                parameter.data = self.parameters[name].data[place]
            for name, buffer in trainer.objective.named_buffers():
                buffer.data = self.buffers[name][place]
        return True

    def _views(self, pool: Pool) -> list[Tensor]:
        """The next batch of everyone: images (K, B, C, H, W), the teacher's logits for them, which are fragile."""
        index = torch.stack([trainer.batch(pool) for trainer in self.trainers])
        if self.trainers[0].student.augment == "none":
            return [part.unflatten(0, index.shape) for part in self.trainers[0].view(pool, index.flatten())]
        views = [trainer.view(pool, mine) for trainer, mine in zip(self.trainers, index, strict=True)]
        return [torch.stack(parts) for parts in zip(*views, strict=True)]

    def _terms(self, parameters: dict, buffers: dict, *batch: Tensor) -> dict[str, Tensor]:
        """The loss of one student, whose tensors are given."""
        return functional_call(self.one, (parameters, buffers), batch)
