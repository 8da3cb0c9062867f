"""The base class of teacher sources, and the training loop that all trained teachers share."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dfkd.domains import Domain, Images
from dfkd.evaluate import accuracy
from dfkd.machine import distributed
from dfkd.machine.capture import detached
from dfkd.machine.data_parallel import data_parallel_loss, on_whole_batches
from dfkd.machine.runtime import Runtime, seeded
from dfkd.models import Classifier
from dfkd.recipe import Recipe
from dfkd.resume.loop import Loop, plain_loop
from dfkd.scenarios import Scenario
from dfkd.training.augment import AUGMENTATIONS, augment, crop, draw, draw_coins, draw_shifts, flip, reach
from dfkd.training.meter import Meter

Log = Callable[[int, dict[str, float]], None]
VIEWS = (*AUGMENTATIONS, "alternating_flip")  # of the training images


class TeacherSource(ABC):
    """Where a teacher comes from: a training, or a file.

    Attributes:
        network: the network that becomes the teacher.
        needs_ood: whether an OOD domain is required.
        is_trained: whether the teacher is trained here, with a recipe.
        augment: augmentation of the training images.
        mean_loss: whether every term of the loss is a mean over a batch of values that each depend on one image only.
            Several ranks can then share a batch.
        log_calls: how many times `train` calls its log.
        loop: yields the numbers of long loops; the run can be stopped between two of them (`dfkd.resume.loop`).
    """

    network: nn.Module
    needs_ood = is_trained = mean_loss = False
    augment = "none"
    log_calls = 1
    loop: Loop = staticmethod(plain_loop)

    @abstractmethod
    def check(self, scenario: Scenario) -> None:
        """Raise ValueError if this source does not fit the scenario. Called before any training."""

    @abstractmethod
    def train(self, scenario: Scenario, runtime: Runtime, seed: int, log: Log) -> Classifier:
        """Train or load the teacher, and return it in evaluation mode.

        Args:
            log: called with (epoch, metrics) after every epoch.
        """


class TrainedTeacher(TeacherSource):
    """A method that trains a teacher. A subclass defines the minimised loss in `loss`.

    Args:
        network: the network to train.
        recipe: optimiser, schedule, batch size (ID images per step; the same number of OOD images is added).
        epochs: passes over the ID training images.
        augment: augmentation of the training images: one of `dfkd.training.augment.augment`, or 'alternating_flip'
            (shifted into a black border; mirrored or not at random in the first epoch, and the other way round in every
            epoch from the one before, so that two epochs show both: arXiv 2404.00498).

    Attributes:
        mean_loss: see `TeacherSource`. A subclass that overrides `fit` may set it only if its whole `fit` satisfies it.
        loss_is_pure: whether the loss depends on its batches and the model alone, not on `epoch` or `step`. A step can
            then be recorded once and replayed (CUDA graphs).
        epoch, step: number of finished epochs and optimisation steps; a loss may depend on them.
    """

    is_trained = True
    loss_is_pure = False
    epoch = step = 0

    def __init__(self, network: nn.Module, recipe: Recipe, epochs: int, augment: str = "none"):
        if epochs < 1:
            raise ValueError(f"epochs must be at least 1, got {epochs}")
        if augment not in VIEWS:
            raise ValueError(f"augment must be one of {', '.join(VIEWS)}, got '{augment}'")
        self.network, self.recipe, self.epochs, self.augment = network, recipe, epochs, augment

    def check(self, scenario: Scenario) -> None:
        """Raise ValueError if this teacher cannot be trained in this scenario."""
        if self.needs_ood and scenario.ood is None:
            raise ValueError(
                f"teacher={type(self).__name__.lower()} needs an OOD domain; "
                f"choose ntl_scenario=close_set, open_set or backdoor"
            )

    @property
    def log_calls(self) -> int:
        """Number of calls of `log` in a training: one per epoch."""
        return self.epochs

    @abstractmethod
    def loss(
        self, model: Classifier, id_batch: Images, ood_batch: Images | None, ood_label: int | None
    ) -> dict[str, Tensor]:
        """Compute the terms of the loss of one step, each a scalar; their sum is minimised.

        Args:
            id_batch: float images and labels of the ID domain.
            ood_batch: the same number of OOD images (fewer if the OOD domain is smaller than a batch), or None if the
                method needs none.
            ood_label: the single label taught on the OOD domain, or None (`Scenario.ood_label`).
        """

    def train(self, scenario: Scenario, runtime: Runtime, seed: int, log: Log) -> Classifier:
        """Train on the scenario's training splits, and return the network as it is after the last epoch.

        Args:
            log: called with (epoch, metrics) after every epoch.

        Raises:
            NonFiniteLoss: a term became NaN or infinite.
        """
        network, id_domain = on_whole_batches(self.network), scenario.id
        model = Classifier(network, id_domain.shape, id_domain.classes, id_domain.mean, id_domain.std)
        runtime.to_device(model).train()
        self.epoch = self.step = 0
        with seeded(seed, "teacher", "training"):
            self.fit(Training(model, scenario, runtime, seed, log, Batches(self, scenario, runtime, seed)))
        return model.eval()

    def fit(self, training: "Training") -> None:
        """Run the whole training; here, minimise `loss` over all epochs. Methods with several phases override this."""
        model, label = training.model, training.scenario.ood_label
        self.descend(training, model, lambda *batches: self.loss(model, *batches, label))

    def descend(
        self,
        training: "Training",
        model: nn.Module,
        loss: Callable[[Images, Images | None], dict[str, Tensor]],
        recipe: Recipe | None = None,
        epochs: int | None = None,
        classifier: Classifier | None = None,
    ) -> None:
        """Minimise the sum of a loss's terms over the parameters of `model`; log after every epoch.

        Args:
            loss: (ID batch, OOD batch) -> terms by name.
            recipe, epochs: None means the teacher's own.
            classifier: the model whose validation accuracy is logged; None means the teacher.
        """
        recipe, epochs = recipe or self.recipe, epochs or self.epochs
        stepper, meter = recipe.make(model.parameters(), epochs * training.batches.steps), Meter()
        gradients = self._captured(loss, stepper.parameters, training.runtime)
        loss = data_parallel_loss(model, loss)
        for _ in self.loop("epoch", epochs, **training.parts(self), stepper=stepper, meter=meter):
            training.batches.shuffle()
            for number in self.loop("batch", training.batches.steps):
                batches = training.batches.take(number)
                if gradients is not None:
                    tensors = [tensor for batch in batches if batch is not None for tensor in (batch.x, batch.y)]
                    terms, by_parameter = gradients(*tensors)
                    stepper.apply(by_parameter)
                else:
                    with training.runtime.autocast():
                        terms = loss(*batches)
                    with training.runtime.gradients():
                        stepper.step(sum(terms.values()))
                meter.add(terms)
                self.step += 1
            training.report(self.epoch, meter.read(distributed.mean), classifier or training.model)
            self.epoch += 1

    def _captured(
        self, loss: Callable[..., dict[str, Tensor]], parameters: list[nn.Parameter], runtime: Runtime
    ) -> Callable[..., tuple[dict[str, Tensor], list[Tensor | None]]] | None:
        """Return a function that computes the terms of a loss and the gradients of parameters as a CUDA graph, from the
        images and labels of the batches; None if they cannot be recorded."""
        if not (self.loss_is_pure and runtime.captures and distributed.team_size() == 1):
            return None

        def gradients(*tensors: Tensor) -> tuple[dict[str, Tensor], list[Tensor | None]]:
            id_batch, ood_batch, *_ = [*map(Images, tensors[::2], tensors[1::2]), None]
            with runtime.autocast():
                terms = loss(id_batch, ood_batch)
            with runtime.gradients():
                found = torch.autograd.grad(sum(terms.values()), parameters, allow_unused=True)
            return detached(terms), list(found)

        return runtime.captured("a step of the teacher", gradients)


class Batches:
    """Shuffled and augmented batches of training images of one size: ID images epoch by epoch, OOD images endlessly."""

    def __init__(self, teacher: TrainedTeacher, scenario: Scenario, runtime: Runtime, seed: int):
        self.train, self.augment = scenario.id.train.to(runtime.device), teacher.augment
        self.size = min(teacher.recipe.batch_size, len(self.train))
        self.steps = len(self.train) // self.size
        self.generator = runtime.generator(seed, "teacher", "batches")
        self.order = torch.empty(0, dtype=torch.long, device=runtime.device)
        self._ood = self.endless(scenario.ood, self.size) if teacher.needs_ood else None
        self.mirrored: Tensor | None = None  # (N,), bool: the ID images that 'alternating_flip' mirrors in this pass

    def shuffle(self) -> None:
        """Start a new pass over the ID images, in a new random order."""
        self.order = self.shuffled(self.train)
        if self.augment == "alternating_flip":
            first = self.mirrored is None
            self.mirrored = draw_coins(len(self.train), self.generator) if first else ~self.mirrored

    def take(self, number: int) -> tuple[Images, Images | None]:
        """Return the ID batch with this number, in 0 .. steps - 1, and the next OOD batch (None if not needed).

        An incomplete last batch of an epoch is dropped. All ranks draw the same batches and views, and each rank takes
        its share of them.
        """
        index = self.order[number * self.size : (number + 1) * self.size]
        return self.prepare(self.train, index), self.ood()

    def ood(self) -> Images | None:
        """Return the next OOD batch, or None if the teacher needs none."""
        return None if self._ood is None else next(self._ood)

    def endless(self, domain: Domain, size: int) -> "Endless":
        """Return an endless iterator over a domain's training images, `size` at a time (all of them if fewer)."""
        return Endless(self, domain.train.to(self.generator.device), size)

    def shuffled(self, images: Images) -> Tensor:
        return torch.randperm(len(images), generator=self.generator, device=self.generator.device)

    def prepare(self, images: Images, index: Tensor) -> Images:
        share = distributed.rank_slice(len(index))
        return Images(self._views(images, index)[share], images.y[index][share])

    def _views(self, images: Images, index: Tensor) -> Tensor:
        pixels, height = images.pixels(index), images.x.shape[2]
        if self.augment != "alternating_flip":
            return augment(pixels, self.augment, *draw(self.augment, len(index), height, self.generator))
        known = images is self.train and self.mirrored is not None  # other images come in no passes of equal length
        mirrored = self.mirrored[index] if known else draw_coins(len(index), self.generator)
        shifts = draw_shifts(len(index), reach(height), self.generator)
        return flip(crop(pixels, reach(height), shifts, border="black"), mirrored)


class Endless:
    """See `Batches.endless`. A class and not a Python generator, whose position a checkpoint could not save."""

    def __init__(self, batches: Batches, images: Images, size: int):
        self.batches, self.images, self.size = batches, images, min(size, len(images))
        self.order = images.y.new_empty(0)  # indices not yet used in this pass

    def __next__(self) -> Images:
        if len(self.order) < self.size:
            self.order = self.batches.shuffled(self.images)
        index, self.order = self.order[: self.size], self.order[self.size :]
        return self.batches.prepare(self.images, index)


@dataclass
class Training:
    """The objects of a running training: model, scenario, runtime, seed, log and batches."""

    model: Classifier
    scenario: Scenario
    runtime: Runtime
    seed: int
    log: Log
    batches: Batches

    def parts(self, teacher: TrainedTeacher) -> dict[str, Any]:
        """Return what a checkpoint of the training has to contain, besides its optimisers and random streams."""
        return {"model": self.model, "method": teacher, "batches": self.batches}

    def report(self, epoch: int, terms: dict[str, float], classifier: Classifier) -> None:
        """Log the means of the loss terms and the accuracy on the ID validation images."""
        metrics = {f"loss/{name}": value for name, value in terms.items()}
        self.log(epoch, metrics | {"val/iacc": accuracy(classifier, self.scenario.id.val, self.runtime)})
