"""Evaluates models on the real images of a scenario; the metrics of `dfkd.metrics` are computed from their logits."""

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dfkd.domains import Images
from dfkd.machine.runtime import Runtime
from dfkd.metrics import COMPUTED, Answers, Exam, Metric, percent
from dfkd.models import Classifier, Teacher
from dfkd.scenarios import Scenario

CHANCE = 0.01  # significance level of the test that a teacher is better than chance


def predictions(model: Classifier, images: Images, runtime: Runtime) -> Tensor:
    """Return the logits (N, classes) of a model, computed in evaluation mode; float32, on the CPU."""
    parts = (model.predict(images.pixels(slice(i, i + runtime.chunk))) for i in range(0, len(images), runtime.chunk))
    return torch.cat([part.float().cpu() for part in parts])


def accuracy(model: Classifier, images: Images, runtime: Runtime) -> float:
    """Return the share of images whose predicted class (the largest logit) is their label, in percent."""
    return percent(predictions(model, images, runtime).argmax(1) == images.y)


class Examiner:
    """Computes metrics of models on the data splits of a scenario. The teacher's logits are computed once per split.

    Args:
        teacher: the teacher, with which metrics may compare a model.
        scenario: its ID and OOD domains.
        runtime: where to compute.
        limit: largest number of images per domain; None for all.
        metrics: the metrics to compute.
    """

    def __init__(
        self,
        teacher: Teacher,
        scenario: Scenario,
        runtime: Runtime,
        limit: int | None = None,
        metrics: Sequence[Metric] = COMPUTED,
    ):
        self.teacher, self.scenario, self.runtime, self.limit = teacher, scenario, runtime, limit
        self.metrics = tuple(metrics)
        self._teachers_logits: dict[tuple[str, str], Tensor] = {}

    def __call__(self, model: Classifier, split: str) -> dict[str, float | None]:
        """Compute all metrics of a model on a data split.

        Args:
            split: 'val' or 'test'.

        Returns:
            {key of the metric: value}; None where a metric does not apply.
        """
        ood = None if self.scenario.ood is None else self._answers(model, "ood", split)
        exam = Exam(model, self.teacher, self.scenario, self.runtime, split, self._answers(model, "id", split), ood)
        return {metric.key: metric.of(exam) for metric in self.metrics}

    def _images(self, domain: str, split: str) -> Images:
        return getattr(getattr(self.scenario, domain), split).take(slice(0, self.limit))

    def _answers(self, model: Classifier, domain: str, split: str) -> Answers:
        images = self._images(domain, split)
        return Answers(
            images, predictions(model, images, self.runtime), functools.partial(self._of_teacher, domain, split)
        )

    def _of_teacher(self, domain: str, split: str) -> Tensor:
        """Return the teacher's logits (N, classes) for one data split of a domain, computed at the first call."""
        if (domain, split) not in self._teachers_logits:
            images = self._images(domain, split)
            self._teachers_logits[domain, split] = predictions(self.teacher, images, self.runtime)
        return self._teachers_logits[domain, split]


def chance_in_words(iacc: float, labels: Tensor, classes: int) -> str | None:
    """Return a sentence that an accuracy is not significantly above chance; None if it is above.

    Chance is the accuracy of always predicting the most frequent class, and at least 1 / classes. The accuracy is not
    above chance if P(X >= hits) > `CHANCE` for X ~ Binomial(images, chance). An accuracy of 100 % is always above
    chance, however few the images.

    Args:
        iacc: accuracy in percent.
        labels: labels (N,) of the images on which it was measured.
        classes: number of classes.
    """
    images, most = len(labels), torch.bincount(labels, minlength=classes)
    chance = max(most.max().item() / images, 1 / classes)
    hits = round(iacc * images / 100)
    if hits == images or _tail(hits, images, chance) <= CHANCE:
        return None
    return (
        f"it is right on {iacc:.1f} % of {images} test images, and calling all of them class {most.argmax().item()} on "
        f"{100 * most.max().item() / images:.1f} %"
    )


def _tail(hits: int, images: int, chance: float) -> float:
    """Return P(X >= hits) for X ~ Binomial(images, chance), 0 < chance < 1; 1 if hits <= images * chance."""
    if hits <= images * chance:
        return 1.0  # not above chance: the exact value is not needed
    k = torch.arange(hits, images + 1, dtype=torch.float64)
    n = torch.tensor(float(images), dtype=torch.float64)
    ways = torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)
    return (ways + k * math.log(chance) + (n - k) * math.log1p(-chance)).exp().sum().item()
