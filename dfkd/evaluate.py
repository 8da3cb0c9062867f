"""What is measured of a teacher or a student: accuracies, attack success, agreement, and the premise of ATEsc."""

import math

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


def premise_in_words(report: dict, used: float | None = None) -> tuple[str | None, bool]:
    """Whether ATEsc's premise holds for a teacher, in a sentence that begins with the radius which matters to the run.

    Args:
        report: what `premise` returned.
        used: the radius that the run's defense attacks with; None if it has no attack, and nothing depends on it.

    Returns:
        (the sentence, or None where there is no OOD domain to compare with;
        whether the premise fails at the radius in use).
    """
    rows = list(zip(report["flip_rates"], report["holds"], strict=True))
    if any(held is None for _, held in rows):
        return None, False
    found = next(((row, held) for row, held in rows if used is not None and math.isclose(row["eps"], used)), None)
    good = [row for row, held in rows if held and (row, held) != found]
    bad = [row for row, held in rows if not held and (row, held) != found]
    if found is None:
        where = f"at eps {_radii(good)}" if good else "at no radius"
        beside = f"; not at {_radii(bad, rates=True)}" if good and bad else ""
        return f"ATEsc's premise, that ID images flip more than OOD images, holds {where}{beside}", False
    row, holds = found
    beside = f"; it also holds at {_radii(good)}" if holds and good else ""
    beside += f"; it does not at {_radii(bad, rates=True)}" if holds and bad else ""
    flips = f"{row['id']:.0f} % of the ID images flip, and {row['ood']:.0f} % of the OOD images"
    if holds:
        return f"ATEsc's premise holds at the radius in use, eps {_radii([row])}: {flips}{beside}", False
    best = max(good, key=lambda row: row["id"] - row["ood"], default=None)
    return (
        f"THE PREMISE OF ATEsc FAILS at the radius in use, eps {_radii([row])}: {flips}, so a split by that attack does "
        f"not tell them apart (teacher's mean confidence: ID {report['id_confidence']:.2f}, OOD "
        f"{report['ood_confidence']:.2f}). "
        + (f"It holds best at {_radii([best], rates=True)}: set attack.eps" if best else "It holds at no radius measured")
    ), True


def _radii(rows: list[dict], rates: bool = False) -> str:
    """Radii as fractions of 255, with the share of ID and of OOD images that flip there."""
    return ", ".join(
        f"{row['eps'] * 255:.3g}/255" + (f" ({row['id']:.0f} % against {row['ood']:.0f} %)" if rates else "")
        for row in rows
    )


def _percent(hits: Tensor) -> float | None:
    """Share of true entries in percent, to two decimals; None of nothing."""
    return round(100 * hits.float().mean().item(), 2) if len(hits) else None
