"""Models on the real images of a scenario: what the metrics of `dfkd.metrics` are computed from."""

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

CHANCE = 0.01  # significance of a teacher's being better than chance


def predictions(model: Classifier, images: Images, runtime: Runtime) -> Tensor:
    """Logits (N, classes) on the CPU, in evaluation mode and float32."""
    parts = (model.predict(images.pixels(slice(i, i + runtime.chunk))) for i in range(0, len(images), runtime.chunk))
    return torch.cat([part.float().cpu() for part in parts])


def accuracy(model: Classifier, images: Images, runtime: Runtime) -> float:
    """Share of images whose largest logit is at their label, in percent."""
    return percent(predictions(model, images, runtime).argmax(1) == images.y)


class Examiner:
    """Measures models on the splits of a scenario, beside the teacher, whose answers are computed once.

    Args:
        limit: at most this many images per domain; None for all.
        metrics: what is measured.
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
        """Measure a model on 'val' or 'test'; returns the value of every metric by its key, None where it does not
        apply."""
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
        """The teacher's logits for one split of a domain."""
        if (domain, split) not in self._teachers_logits:
            images = self._images(domain, split)
            self._teachers_logits[domain, split] = predictions(self.teacher, images, self.runtime)
        return self._teachers_logits[domain, split]


def chance_in_words(iacc: float, labels: Tensor, classes: int) -> str | None:
    """That an accuracy is not significantly above chance, in a sentence; None if it is.

    Chance is the largest share of one class, at least 1 / classes: what always saying that class comes to. The test is
    a binomial one, P(as many hits or more by chance) > `CHANCE`; all hits of however few images are never chance.

    Args:
        iacc: accuracy in percent.
        labels: of the images that it was measured on (N,).
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
    """P(X >= hits) of X ~ Binomial(images, chance), 0 < chance < 1."""
    if hits <= images * chance:
        return 1.0  # no better than expected
    k = torch.arange(hits, images + 1, dtype=torch.float64)
    n = torch.tensor(float(images), dtype=torch.float64)
    ways = torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)
    return (ways + k * math.log(chance) + (n - k) * math.log1p(-chance)).exp().sum().item()
