"""Backdoor scenario of NTL: the OOD domain is the ID domain with a trigger (arXiv 2507.04119)."""

from dataclasses import replace

import torch

from dfkd.domains import Domain, Images, to_float
from dfkd.scenarios.base import Scenario
from dfkd.triggers import Trigger


def backdoor(id: Domain, trigger: Trigger, target: int = 0) -> Scenario:
    """Create a scenario whose OOD images are the ID images with `trigger`; the teacher is taught the label `target`.

    The OOD domain has the true labels, so that both the accuracy on triggered images and the attack success rate can be
    measured. The trigger is inserted in images in [0, 1], before any normalisation; 8-bit images stay 8-bit.

    Raises:
        ValueError: the examples of the ID domain are not images.
    """
    if not id.modality.has_pixels:
        raise ValueError(
            f"a trigger is stamped on images, and '{id.name}' is a domain of {id.modality.name}; choose "
            f"ntl_scenario=none, close_set or open_set"
        )
    splits = {part: _stamped(getattr(id, part), trigger) for part in ("train", "val", "test")}
    return Scenario(id, replace(id, name=f"{id.name}_triggered", **splits), target, shared_labels=True, backdoor=True)


def _stamped(images: Images, trigger: Trigger) -> Images:
    parts = []
    for part in images.x.split(2000):
        stamped = trigger(to_float(part)).clamp(0, 1)
        parts.append((stamped * 255).round().to(torch.uint8) if part.dtype == torch.uint8 else stamped)
    return Images(torch.cat(parts), images.y)
