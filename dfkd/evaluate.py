"""What is measured of a teacher or a student: accuracies, attack success, agreement."""

import math

import torch
from torch import Tensor

from dfkd.domains import Images
from dfkd.machine.runtime import Runtime
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
    """

    def __init__(self, teacher: Teacher, scenario: Scenario, runtime: Runtime, limit: int | None = None):
        self.teacher, self.scenario, self.runtime, self.limit = teacher, scenario, runtime, limit
        self._teachers_answers: dict[tuple[str, str], Tensor] = {}

    def __call__(self, model: Classifier, split: str) -> dict[str, float | None]:
        """Measure a model on 'val' or 'test'.

        Returns:
            percentages, None where they do not apply:
            iacc: accuracy on ID images.
            oacc: accuracy on OOD images against their true labels (close_set, backdoor).
            olacc: how often the model gives OOD images the label the teacher was taught (open_set); in a close set,
                where no one label was taught, how often it repeats the teacher's answer where that answer is wrong.
            asr: attack success rate, how often a triggered image whose label is not the target is called the target.
            agreement: how often the model and the teacher agree on ID images.
        """
        result: dict[str, float | None] = dict.fromkeys(("iacc", "oacc", "olacc", "asr", "agreement"))
        scenario = self.scenario
        labels, answer = self._answers(model, "id", split)
        result["iacc"] = percent(answer == labels)
        result["agreement"] = percent(answer == self._taught("id", split))
        if scenario.ood is None:
            return result
        labels, answer = self._answers(model, "ood", split)
        if scenario.shared_labels:
            result["oacc"] = percent(answer == labels)
        if scenario.backdoor:
            result["asr"] = percent((answer == scenario.ood_label)[labels != scenario.ood_label])
        elif scenario.ood_label is not None:
            result["olacc"] = percent(answer == scenario.ood_label)
        else:
            taught = self._taught("ood", split)
            result["olacc"] = percent((answer == taught)[taught != labels])
        return result

    def _answers(self, model: Classifier, domain: str, split: str) -> tuple[Tensor, Tensor]:
        """True labels and a model's labels of one split of a domain."""
        images = getattr(getattr(self.scenario, domain), split)
        images = images.take(slice(0, self.limit))
        return images.y, predictions(model, images, self.runtime).argmax(1)

    def _taught(self, domain: str, split: str) -> Tensor:
        if (domain, split) not in self._teachers_answers:
            self._teachers_answers[domain, split] = self._answers(self.teacher, domain, split)[1]
        return self._teachers_answers[domain, split]


def percent(hits: Tensor) -> float | None:
    """Share of true entries in percent, to two decimals; None of nothing."""
    return round(100 * hits.float().mean().item(), 2) if len(hits) else None


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
