"""What every trained teacher shares: two streams of images, one recipe, one loop."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dfkd.domains import Domain, Images
from dfkd.evaluate import accuracy
from dfkd.machine import distributed
from dfkd.machine.data_parallel import on_whole_batches, replicated
from dfkd.machine.runtime import Runtime, seeded
from dfkd.models import Classifier
from dfkd.recipe import Recipe
from dfkd.resume.loop import Loop, plain
from dfkd.scenarios import Scenario
from dfkd.training.augment import AUGMENTATIONS, augment
from dfkd.training.meter import Meter

Log = Callable[[int, dict[str, float]], None]


class TeacherSource(ABC):
    """Where a teacher comes from: a training, or a file.

    Attributes:
        network: what becomes of it is the teacher.
        needs_ood: whether it needs an OOD domain.
        is_trained: whether there is a training, with a recipe.
        augment: how the images of its training are augmented.
        mean_loss: whether every term of its loss is a mean over the images of a batch, and looks at each by itself:
            then several ranks can share a batch.
        reports: how often it logs.
        loop: hands out the numbers of its long loops, between which a run can be stopped (`dfkd.resume.loop`).
    """

    network: nn.Module
    needs_ood = is_trained = mean_loss = False
    augment = "none"
    reports = 1
    loop: Loop = staticmethod(plain)

    @abstractmethod
    def check(self, scenario: Scenario) -> None:
        """Raise ValueError if it does not fit the scenario; called before any work."""

    @abstractmethod
    def train(self, scenario: Scenario, runtime: Runtime, seed: int, log: Log) -> Classifier:
        """Make the teacher.

        Args:
            log: called with (epoch, metrics) after every epoch.
        """


class TrainedTeacher(TeacherSource):
    """A way to train a teacher. A subclass says what it minimises in `loss`.

    Args:
        network: the network to train.
        recipe: optimiser, schedule, batch size (ID images a step; as many OOD images come on top).
        epochs: passes over the ID training images.
        augment: of the training images: 'none', 'shift' or 'crop_flip'.

    Attributes:
        mean_loss: see `TeacherSource`; one that overrides `fit` has to see to that, too.
        epoch, step: how many epochs and optimisation steps are done; a loss may depend on them.
    """

    is_trained = True
    epoch = step = 0

    def __init__(self, network: nn.Module, recipe: Recipe, epochs: int, augment: str = "none"):
        if epochs < 1:
            raise ValueError(f"epochs must be at least 1, got {epochs}")
        if augment not in AUGMENTATIONS:
            raise ValueError(f"augment must be one of {', '.join(AUGMENTATIONS)}, got '{augment}'")
        self.network, self.recipe, self.epochs, self.augment = network, recipe, epochs, augment

    def check(self, scenario: Scenario) -> None:
        """Raise ValueError if this teacher cannot be trained in this scenario."""
        if self.needs_ood and scenario.ood is None:
            raise ValueError(
                f"teacher={type(self).__name__.lower()} needs an OOD domain; "
                f"choose ntl_scenario=close_set, open_set or backdoor"
            )

    @property
    def reports(self) -> int:
        """How often a training logs: once an epoch."""
        return self.epochs

    @abstractmethod
    def loss(
        self, model: Classifier, id_batch: Images, ood_batch: Images | None, ood_label: int | None
    ) -> dict[str, Tensor]:
        """Terms of the loss of one step; their sum is minimised.

        Args:
            id_batch: float images and labels of the ID domain.
            ood_batch: the same number of the OOD domain, or None where there is none or it is not needed.
            ood_label: the one label taught on the OOD domain, or None (`Scenario.ood_label`).
        """

    def train(self, scenario: Scenario, runtime: Runtime, seed: int, log: Log) -> Classifier:
        """Train on the scenario's training splits; the last epoch counts.

        Args:
            log: called with (epoch, metrics) after every epoch.

        Raises:
            NonFiniteLoss: a term became NaN or infinite.
        """
        network, known = on_whole_batches(self.network), scenario.id
        model = Classifier(network, known.shape, known.classes, known.mean, known.std)
        runtime.place(model).train()
        self.epoch = self.step = 0
        with seeded(seed, "teacher", "training"):
            self.fit(Training(model, scenario, runtime, seed, log, Batches(self, scenario, runtime, seed)))
        return model.eval()

    def fit(self, training: "Training") -> None:
        """The whole training; here: `loss` over all epochs. For methods of more than one phase to override."""
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
            loss: of (ID batch, OOD batch).
            recipe, epochs: the teacher's own if None.
            classifier: what the logged validation accuracy is of, if it is not the teacher.
        """
        recipe, epochs = recipe or self.recipe, epochs or self.epochs
        stepper, meter = recipe.make(model.parameters(), epochs * training.batches.steps), Meter()
        loss = replicated(model, loss)
        for _ in self.loop("epoch", epochs, **training.parts(self), stepper=stepper, meter=meter):
            training.batches.shuffle()
            for number in self.loop("batch", training.batches.steps):
                batches = training.batches.take(number)
                with training.runtime.autocast():
                    terms = loss(*batches)
                stepper.step(sum(terms.values()))
                meter.add(terms)
                self.step += 1
            training.report(self.epoch, meter.read(distributed.mean), classifier or training.model)
            self.epoch += 1


class Batches:
    """The training images in batches of one size, shuffled and augmented: ID an epoch at a time, OOD without end."""

    def __init__(self, teacher: TrainedTeacher, scenario: Scenario, runtime: Runtime, seed: int):
        self.train, self.how = scenario.id.train.to(runtime.device), teacher.augment
        self.size = min(teacher.recipe.batch_size, len(self.train))
        self.steps = len(self.train) // self.size
        self.generator = runtime.generator(seed, "teacher", "batches")
        self.order = torch.empty(0, dtype=torch.long, device=runtime.device)
        self._ood = self.endless(scenario.ood, self.size) if teacher.needs_ood else None

    def shuffle(self) -> None:
        """Begin a pass over the ID images."""
        self.order = self.shuffled(self.train)

    def take(self, number: int) -> tuple[Images, Images | None]:
        """(ID batch, OOD batch or None) of this number below `steps`; an incomplete last batch is left out.

        Several ranks draw the same batches and views, and take each its share of them.
        """
        index = self.order[number * self.size : (number + 1) * self.size]
        return self.prepare(self.train, index), self.ood()

    def ood(self) -> Images | None:
        """The next OOD batch, or None where the teacher needs none."""
        return None if self._ood is None else next(self._ood)

    def endless(self, domain: Domain, size: int) -> "Endless":
        """Training images of a domain without end, `size` at a time (all of them, where there are fewer)."""
        return Endless(self, domain.train.to(self.generator.device), size)

    def shuffled(self, images: Images) -> Tensor:
        return torch.randperm(len(images), generator=self.generator, device=self.generator.device)

    def prepare(self, images: Images, index: Tensor) -> Images:
        mine = distributed.share(len(index))
        return Images(augment(images.pixels(index), self.how, self.generator)[mine], images.y[index][mine])


class Endless:
    """See `Batches.endless`. Not a generator: what a generator has come to could not be saved."""

    def __init__(self, batches: Batches, images: Images, size: int):
        self.batches, self.images, self.size = batches, images, min(size, len(images))
        self.order = images.y.new_empty(0)  # what is left of a pass

    def __next__(self) -> Images:
        if len(self.order) < self.size:
            self.order = self.batches.shuffled(self.images)
        index, self.order = self.order[: self.size], self.order[self.size :]
        return self.batches.prepare(self.images, index)


@dataclass
class Training:
    """A training under way: what is trained, on what, where, and who is told."""

    model: Classifier
    scenario: Scenario
    runtime: Runtime
    seed: int
    log: Log
    batches: Batches

    def parts(self, teacher: TrainedTeacher) -> dict[str, Any]:
        """What a training depends on, for its checkpoints, beside its own optimisers and streams."""
        return {"model": self.model, "method": teacher, "batches": self.batches}

    def report(self, epoch: int, terms: dict[str, float], classifier: Classifier) -> None:
        """Log the means of the loss terms and the accuracy on the ID validation images."""
        metrics = {f"loss/{name}": value for name, value in terms.items()}
        self.log(epoch, metrics | {"val/iacc": accuracy(classifier, self.scenario.id.val, self.runtime)})
