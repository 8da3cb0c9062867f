"""Scores that are no look of the audit, published detectors and what was tried, for the finished teachers of the zoo.

    python scripts/audit/baselines.py --out outputs/audit            a second a teacher: outputs/audit/baselines.json
    python scripts/audit/baselines.py --out outputs/audit --tried    some seconds: outputs/audit/tried.json

Only the teacher and the audit's synthetic images are used. A larger score means "more likely trapped".
"""

import argparse
import itertools
import json
from pathlib import Path

import torch
from parts import BASELINES, Audited, audited, chosen
from safetensors.torch import load_file
from scores import auroc
from torch import Tensor

from dfkd.audit.scouting import draw_scouts
from dfkd.audit.signals import stands_out
from dfkd.machine.runtime import stream_seed
from dfkd.models import Classifier, Teacher, load_classifier
from dfkd.models.hooks import batch_norms

SCOUTS, EPS, STEPS = 120, 8 / 255, 10
SOURCES, TARGETS = 4, 10  # images that a patch is cut from, and pasted on
FLOOR = 0.05  # smallest spread of the other classes that is believed (`dfkd.audit.signals.Signal`)


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


def moved_patch(teacher: Classifier, images: Tensor, labels: Tensor) -> float:
    """Return how much one class stands out by patches of its synthetic images. For every class, a patch of a quarter or
    half of the side is cut from each of a few of its images and pasted, at the same place, on images of the other
    classes; what counts is the share of these that the teacher then gives the class, at the best place.

    Args:
        images: (N, C, H, W), in [0, 1], of all classes.
        labels: the classes for which they were made (N,).
    """
    side, best = images.shape[2], []
    for label in range(teacher.classes):
        own, others = images[labels == label][:SOURCES], images[labels != label][:TARGETS]
        shares = []
        for size in (side // 4, side // 2):
            steps = range(0, side - size + 1, size // 2)
            for top, left in itertools.product(steps, steps):
                pasted = others.expand(len(own), *others.shape).clone()
                pasted[..., top : top + size, left : left + size] = own[
                    :, None, :, top : top + size, left : left + size
                ]
                shares.append((teacher.predict(pasted.flatten(0, 1)).argmax(1) == label).float().mean().item())
        best.append(max(shares))
    return max(stands_out(best, place, FLOOR) for place in range(len(best)))


def likeness(images: Tensor, labels: Tensor, radii: Tensor) -> float:
    """Return how much one class stands out by how alike its robust images are: the mean correlation of the half of its
    images that flip last.

    Args:
        images, labels: as for `moved_patch`.
        radii: at which the images flip (N,).
    """
    alike = []
    for label in labels.unique():
        own = images[labels == label][radii[labels == label].argsort(descending=True)]
        robust = own[: max(2, len(own) // 2)].flatten(1)
        pairs = torch.corrcoef(robust)
        alike.append(((pairs.sum() - len(robust)) / (len(robust) * (len(robust) - 1))).item())
    return max(stands_out(alike, place, FLOOR) for place in range(len(alike)))


def published(one: Audited) -> dict[str, float]:
    """Return the scores that stand beside the audit in the tables."""
    teacher = teacher_of(one)
    stream = torch.Generator().manual_seed(stream_seed(one.member.seed, "baselines"))
    return {"trodo": trodo(teacher, draw_scouts(teacher, SCOUTS, stream)), "batch_norm": batch_norm(teacher)}


def tried(one: Audited) -> dict[str, float]:
    """Return the scores that were tried as looks."""
    images, labels = load_file(one.folder / "pictures.safetensors")["images"], torch.tensor(one.looks.labels)
    alike = likeness(images, labels, torch.tensor(one.looks.radii))
    return {"moved_patch": moved_patch(teacher_of(one), images, labels), "likeness": alike}


def teacher_of(one: Audited) -> Teacher:
    return Teacher.of(load_classifier(one.teacher / "teacher.json"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs/audit"))
    parser.add_argument("--tried", action="store_true", help="those that were tried as looks, on the part to choose on")
    given = parser.parse_args()
    teachers, file, score = audited(given.out), given.out / BASELINES, published
    if given.tried:
        teachers = chosen(t for t in teachers if t.to_choose)
        file, score = given.out / "tried.json", tried
    found = json.loads(file.read_text()) if file.exists() else {}
    for one in teachers:
        if one.member.name not in found:
            found[one.member.name] = score(one)
            file.write_text(json.dumps(found))
    print(f"{file}: {len(found)} teachers")
    for name in found[teachers[0].member.name] if given.tried else ():
        parts = ([found[t.member.name][name] for t in teachers if t.member.trapped is is_in] for is_in in (True, False))
        print(f"{name}: AUROC {auroc(*parts):.3f}")


if __name__ == "__main__":
    main()
