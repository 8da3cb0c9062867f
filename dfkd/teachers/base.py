"""What every trained teacher shares: two streams of images, one recipe, one loop."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from dfkd.augment import AUGMENTATIONS, augment
from dfkd.domains import Domain, Images
from dfkd.evaluate import accuracy
from dfkd.meter import Meter
from dfkd.models import Classifier
from dfkd.recipe import Recipe
from dfkd.runtime import Runtime, seeded
from dfkd.scenarios import Scenario

Log = Callable[[int, dict[str, float]], None]


class TrainedTeacher(ABC):
    """A way to train a teacher. A subclass says what it minimises in `loss`.

    Args:
        network: the network to train.
        recipe: optimiser, schedule, batch size (ID images a step; as many OOD images come on top).
        epochs: passes over the ID training images.
        augment: of the training images: 'none', 'shift' or 'crop_flip'.

    Attributes:
        needs_ood: whether it cannot be trained without an OOD domain.
    """

    needs_ood = False

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
        model = Classifier(self.network, scenario.id.shape, scenario.id.classes, scenario.id.mean, scenario.id.std)
        runtime.place(model).train()
        train = scenario.id.train.to(runtime.device)
        batch = min(self.recipe.batch_size, len(train))
        steps = len(train) // batch
        stepper = self.recipe.make(model.parameters(), self.epochs * steps)
        generator = runtime.generator(seed, "teacher", "batches")
        ood = self._stream(scenario.ood, batch, runtime, generator) if self.needs_ood else None
        meter = Meter()
        with seeded(seed, "teacher", "training"):
            for epoch in range(self.epochs):
                order = torch.randperm(len(train), generator=generator, device=runtime.device)
                for index in order[: steps * batch].split(batch):
                    id_batch = self._prepare(train, index, generator)
                    ood_batch = None if ood is None else next(ood)
                    with runtime.autocast():
                        terms = self.loss(model, id_batch, ood_batch, scenario.ood_label)
                    stepper.step(sum(terms.values()))
                    meter.add(terms)
                metrics = {f"loss/{name}": value for name, value in meter.read().items()}
                metrics["val/iacc"] = accuracy(model, scenario.id.val, runtime)
                log(epoch, metrics)
        return model.eval()

    def _prepare(self, images: Images, index: Tensor, generator: torch.Generator) -> Images:
        return Images(augment(images.pixels(index), self.augment, generator), images.y[index])

    def _stream(self, domain: Domain, batch: int, runtime: Runtime, generator: torch.Generator):
        """Endless shuffled batches of a domain's training images."""
        train = domain.train.to(runtime.device)
        while True:
            order = torch.randperm(len(train), generator=generator, device=runtime.device)
            for index in order.split(batch):
                if len(index) == min(batch, len(train)):
                    yield self._prepare(train, index, generator)
