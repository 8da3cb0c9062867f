"""What the teachers of the zoo that unlearned a neighbouring domain say of its images, and how sure they are.

    python scripts/audit/outside.py --out outputs/audit --data DIR     writes outputs/audit/outside.json

The trap of a close set teaches no class. Some methods make the teacher firmly wrong there, nearly always with one
class, and others only unsure, which is no trap in the sense of the audit (docs/audit.md).
"""

import argparse
import json
from pathlib import Path

import torch
from parts import OUTSIDE, audited
from zoo import cell

from dfkd.domains import to_float
from dfkd.models import Teacher, load_classifier
from dfkd.stages.prepare import prepare

SURE = 0.5  # smallest confidence of a sure answer
IMAGES = 1000  # of the test set, at most


def answers(teacher: Teacher, images: torch.Tensor) -> dict[str, float | int]:
    """Return what the teacher says of images (N, C, H, W): 'sure', the percentage that it answers with a confidence
    above `SURE`, 'class', its most frequent answer, and 'share', the percentage of the images with this answer."""
    confidence, labels = teacher.predict(images).softmax(1).max(1)
    counts = labels.bincount(minlength=teacher.classes)
    share, label = 100 * counts.max().item() / len(images), int(counts.argmax())
    return {"sure": 100 * (confidence > SURE).float().mean().item(), "class": label, "share": share}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs/audit"))
    parser.add_argument("--data", type=Path, default=Path("data"))
    given = parser.parse_args()
    file = given.out / OUTSIDE
    found = json.loads(file.read_text()) if file.exists() else {}
    for one in audited(given.out):
        if one.member.kind != "close_set" or not one.member.trapped or one.member.name in found:
            continue
        teacher = Teacher.of(load_classifier(one.teacher / "teacher.json"))
        images = prepare(cell(one.member, given.data, given.out)).scenario.ood.test.pixels(slice(0, IMAGES))
        found[one.member.name] = answers(teacher, to_float(images))
        file.write_text(json.dumps(found))
    print(f"{file}: {len(found)} teachers")


if __name__ == "__main__":
    main()
