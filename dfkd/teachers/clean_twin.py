"""The clean twin of a trapped teacher: the same training without the trap."""

from dataclasses import replace

from torch import Tensor

from dfkd.domains import Images
from dfkd.machine.runtime import Runtime
from dfkd.models import Classifier
from dfkd.scenarios import Scenario
from dfkd.teachers.backdoor import Backdoor
from dfkd.teachers.base import Log, TrainedTeacher


class CleanTwin(Backdoor):
    """Trains like `Backdoor`, but the images that would be triggered stay as they are and keep their own labels.

    A detector of trapped teachers may only use what the trap does to a network. A twin therefore takes as many steps,
    with batches of the same size, as the teacher that it is compared with, so that counters and BatchNorm statistics
    tell nothing. With the `poison_rate` of a backdoor, the same images are in the same batches. Without it, every step
    has two batches of ID images, which is a twin of the methods that train on as many OOD as ID images.

    Args:
        args, kwargs: arguments of `Backdoor`.
    """

    def check(self, scenario: Scenario) -> None:
        if self.poison_rate is None:
            TrainedTeacher.check(self, scenario)
        else:
            super().check(scenario)

    def train(self, scenario: Scenario, runtime: Runtime, seed: int, log: Log) -> Classifier:
        return super().train(replace(scenario, ood=scenario.id), runtime, seed, log)

    def loss(
        self, model: Classifier, id_batch: Images, ood_batch: Images | None, ood_label: int | None
    ) -> dict[str, Tensor]:
        return super().loss(model, id_batch, ood_batch, None)
