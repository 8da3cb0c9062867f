"""What is measured of a teacher or a student: accuracies, attack success, agreement, and the premise of ATEsc."""

import torch
from torch import Tensor

from dfkd.attacks import PGD, attack_warnings, is_deterministic
from dfkd.domains import Images
from dfkd.models import Classifier, Teacher
from dfkd.runtime import Runtime
from dfkd.scenarios import Scenario


def predictions(model: Classifier, images: Images, runtime: Runtime) -> Tensor:
    """Logits (N, classes) on the CPU, in evaluation mode and float32."""
    parts = (model.predict(images.pixels(slice(i, i + runtime.chunk))) for i in range(0, len(images), runtime.chunk))
    return torch.cat([part.float().cpu() for part in parts])


def accuracy(model: Classifier, images: Images, runtime: Runtime) -> float:
    """Share of images whose largest logit is at their label, in percent."""
    return _percent(predictions(model, images, runtime).argmax(1) == images.y)


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
        result["iacc"] = _percent(answer == labels)
        result["agreement"] = _percent(answer == self._taught("id", split))
        if scenario.ood is None:
            return result
        labels, answer = self._answers(model, "ood", split)
        if scenario.shared_labels:
            result["oacc"] = _percent(answer == labels)
        if scenario.backdoor:
            result["asr"] = _percent((answer == scenario.ood_label)[labels != scenario.ood_label])
        elif scenario.ood_label is not None:
            result["olacc"] = _percent(answer == scenario.ood_label)
        else:
            taught = self._taught("ood", split)
            result["olacc"] = _percent((answer == taught)[taught != labels])
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


def premise(
    teacher: Teacher, scenario: Scenario, runtime: Runtime, seed: int, eps: list[float], steps: int, images: int
) -> dict:
    """Whether the premise of ATEsc holds for a teacher: under PGD, ID images flip more often than OOD images.

    Args:
        eps: radii of the attack, on the images' scale.
        steps: PGD steps at each radius.
        images: at most this many validation images a domain.

    Returns:
        id_confidence, ood_confidence: mean largest softmax probability, in [0, 1].
        flip_rates: for every eps `{"eps": e, "id": percent, "ood": percent or None}`.
        holds: for every eps whether ID flips more, or None without an OOD domain.
        warnings: reasons not to trust the attack.
    """
    domains = {"id": scenario.id, "ood": scenario.ood}
    report: dict = {"flip_rates": [{"eps": e, "id": None, "ood": None} for e in eps], "warnings": []}
    for name, domain in domains.items():
        report[f"{name}_confidence"] = None
        if domain is None:
            continue
        x = domain.val.pixels(slice(0, images)).to(runtime.device)
        logits = teacher.predict(x, runtime.chunk).float()
        report[f"{name}_confidence"] = round(logits.softmax(1).amax(1).mean().item(), 4)
        for row in report["flip_rates"]:
            attack = PGD(eps=row["eps"], steps=steps, box=domain.box)
            generator = runtime.generator(seed, "premise", name, str(row["eps"]))
            parts = zip(x.split(runtime.chunk), logits.split(runtime.chunk), strict=True)
            results = [attack.attack(teacher, part, generator, known) for part, known in parts]
            row[name] = _percent(torch.cat([result.flipped for result in results]))
        dead, saturated = (
            torch.cat([getattr(result, what) for result in results]).float().mean().item()
            for what in ("dead", "saturated")
        )
        said = attack_warnings(dead, saturated, is_deterministic(teacher, x[:64]))
        report["warnings"] += [f"{name}: {text}" for text in said]
    has_ood = scenario.ood is not None
    report["holds"] = [row["id"] > row["ood"] if has_ood else None for row in report["flip_rates"]]
    return report


def premise_in_words(report: dict) -> str | None:
    """One sentence on whether ATEsc's premise holds, or None where there is no OOD domain to compare with."""
    rows = report["flip_rates"]
    if any(held is None for held in report["holds"]):
        return None

    def radius(row: dict) -> str:
        return f"{row['eps'] * 255:.3g}/255"

    failed = [
        f"{radius(row)} ({row['id']:.0f} % against {row['ood']:.0f} %)"
        for row, held in zip(rows, report["holds"], strict=True)
        if not held
    ]
    if not failed:
        return f"the premise of ATEsc holds: ID images flip more than OOD images at eps {', '.join(map(radius, rows))}"
    return (
        f"THE PREMISE OF ATEsc FAILS at eps {', '.join(failed)}: ID images do not flip more than OOD images, so a "
        f"split by that attack does not tell them apart (teacher's mean confidence: ID {report['id_confidence']:.2f}, "
        f"OOD {report['ood_confidence']:.2f})"
    )


def _percent(hits: Tensor) -> float | None:
    """Share of true entries in percent, to two decimals; None of nothing."""
    return round(100 * hits.float().mean().item(), 2) if len(hits) else None
