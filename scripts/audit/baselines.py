"""Scores of published detectors that are no look of the audit, for the finished teachers of the zoo.

    python scripts/audit/baselines.py --out outputs/audit     writes outputs/audit/baselines.json, a second a teacher

Only the teacher is used. A larger score means "more likely trapped".
"""

import argparse
import json
from pathlib import Path

import torch
from parts import BASELINES, audited
from torch import Tensor

from dfkd.audit.scouting import draw_scouts
from dfkd.machine.runtime import stream_seed
from dfkd.models import Classifier, Teacher, load_classifier
from dfkd.models.hooks import batch_norms

SCOUTS, EPS, STEPS = 120, 8 / 255, 10


def trodo(teacher: Teacher, images: Tensor) -> float:
    """Return how much surer the teacher becomes, under attack, of images outside of its domain (the signature of TRODO,
    NeurIPS 2024, arXiv 2501.17151; its images, radius and threshold are chosen otherwise).

        mean over images of MSP(x*) - MSP(x),   x* = argmax of MSP over || x* - x ||_inf <= 8/255

    MSP is the largest softmax probability. x* is found by ten steps of PGD.

    Args:
        images: images that mean nothing (N, C, H, W), in [0, 1].
    """
    moved = images.clone()
    for _ in range(STEPS):
        moved.requires_grad_()
        (gradient,) = torch.autograd.grad(largest(teacher(moved)).sum(), moved)
        moved = moved.detach() + 2.5 * EPS / STEPS * gradient.sign()
        moved = torch.min(torch.max(moved, images - EPS), images + EPS).clamp(0, 1)
    with torch.no_grad():
        return (largest(teacher(moved)) - largest(teacher(images))).mean().item()


def largest(logits: Tensor) -> Tensor:
    return logits.softmax(1).amax(1)


def batch_norm(teacher: Classifier) -> float:
    """Return how far the running variance of a channel lies above its layer's others at most: in standard deviations of
    the logarithm over the layer. Channels that answer to a trigger alone are the idea. 0 for a network without
    BatchNorm."""
    logs = [layer.running_var.clamp_min(1e-12).log() for layer in batch_norms(teacher.net)]
    return max((((one - one.mean()) / one.std()).max().item() for one in logs), default=0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs/audit"))
    given = parser.parse_args()
    file = given.out / BASELINES
    found = json.loads(file.read_text()) if file.exists() else {}
    for one in audited(given.out):
        if one.member.name in found:
            continue
        teacher = Teacher.of(load_classifier(one.teacher / "teacher.json"))
        images = draw_scouts(teacher, SCOUTS, torch.Generator().manual_seed(stream_seed(one.member.seed, "baselines")))
        found[one.member.name] = {"trodo": trodo(teacher, images), "batch_norm": batch_norm(teacher)}
        file.write_text(json.dumps(found))
    print(f"{file}: {len(found)} teachers")


if __name__ == "__main__":
    main()
