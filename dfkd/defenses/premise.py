"""ATEsc's premise (Hong et al., ICML 2025, arXiv 2507.04119): under attack, ID images flip more often than OOD images.

Measured on real validation images: a diagnosis of the teacher, not part of a defense.
"""

import math

import torch

from dfkd.attacks import PGD, attack_warnings, is_deterministic
from dfkd.machine.runtime import Runtime
from dfkd.metrics import percent
from dfkd.models import Teacher
from dfkd.scenarios import Scenario


def measure_premise(
    teacher: Teacher, scenario: Scenario, runtime: Runtime, seed: int, eps: list[float], steps: int, images: int
) -> dict:
    """Measure whether ATEsc's premise holds for a teacher: under PGD, ID images flip more often than OOD images.

    Args:
        eps: radii of the attack, on the images' scale.
        steps: PGD steps at each radius.
        images: use at most this many validation images per domain.

    Returns:
        a dictionary with
        id_confidence, ood_confidence: mean largest softmax probability, in [0, 1]; the latter None without OOD domain.
        flip_rates: for every eps `{"eps": e, "id": percent, "ood": percent or None}`.
        holds: for every eps whether ID images flip more often; None without an OOD domain.
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
            attack = PGD(eps=row["eps"], steps=steps, box=domain.modality.box)
            generator = runtime.generator(seed, "premise", name, str(row["eps"]))
            parts = zip(x.split(runtime.chunk), logits.split(runtime.chunk), strict=True)
            results = [attack.attack(teacher, part, generator, known) for part, known in parts]
            row[name] = percent(torch.cat([result.flipped for result in results]))
        dead, saturated = (
            torch.cat([getattr(result, what) for result in results]).float().mean().item()
            for what in ("dead", "saturated")
        )
        warnings = attack_warnings(dead, saturated, is_deterministic(teacher, x[:64]))
        report["warnings"] += [f"{name}: {text}" for text in warnings]
    has_ood = scenario.ood is not None
    report["holds"] = [row["id"] > row["ood"] if has_ood else None for row in report["flip_rates"]]
    return report


def premise_in_words(report: dict, radius: float | None = None) -> tuple[str | None, bool]:
    """Describe in a sentence whether ATEsc's premise holds for a teacher, at the radius in use first.

    Args:
        report: the result of `measure_premise`.
        radius: radius of the attack in the run's defense; None if the defense has no attack.

    Returns:
        (the sentence, or None without an OOD domain; whether the premise fails at the radius in use).
    """
    rows = list(zip(report["flip_rates"], report["holds"], strict=True))
    if any(held is None for _, held in rows):
        return None, False
    near = (pair for pair in rows if radius is not None and math.isclose(pair[0]["eps"], radius))
    at_radius = next(near, None)
    holding = [row for row, held in rows if held and (row, held) != at_radius]
    failing = [row for row, held in rows if not held and (row, held) != at_radius]
    if at_radius is None:
        where = f"at eps {_radii(holding)}" if holding else "at no radius"
        beside = f"; not at {_radii(failing, rates=True)}" if holding and failing else ""
        return f"ATEsc's premise, that ID images flip more than OOD images, holds {where}{beside}", False
    row, holds = at_radius
    beside = f"; it also holds at {_radii(holding)}" if holds and holding else ""
    beside += f"; it does not at {_radii(failing, rates=True)}" if holds and failing else ""
    flips = f"{row['id']:.0f} % of the ID images flip, and {row['ood']:.0f} % of the OOD images"
    if holds:
        return f"ATEsc's premise holds at the radius in use, eps {_radii([row])}: {flips}{beside}", False
    best = max(holding, key=lambda row: row["id"] - row["ood"], default=None)
    return (
        f"THE PREMISE OF ATEsc FAILS at the radius in use, eps {_radii([row])}: {flips}, so a split by that attack "
        f"does not tell them apart (teacher's mean confidence: ID {report['id_confidence']:.2f}, OOD "
        f"{report['ood_confidence']:.2f}). "
        + (
            f"It holds best at {_radii([best], rates=True)}: set attack.eps"
            if best
            else "It holds at no radius measured"
        )
    ), True


def _radii(rows: list[dict], rates: bool = False) -> str:
    """Format radii as fractions of 255; with `rates`, add the share of ID and of OOD images that flip."""
    return ", ".join(
        f"{row['eps'] * 255:.3g}/255" + (f" ({row['id']:.0f} % against {row['ood']:.0f} %)" if rates else "")
        for row in rows
    )
