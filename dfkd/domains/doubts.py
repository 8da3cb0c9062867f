"""Warnings about properties of a domain's images and labels that are probably, but not certainly, mistakes."""

import torch
from torch import Tensor

from dfkd.domains.base import Domain, Images

NARROW = 0.1  # images in [0, 1] whose pixels span less than this are nearly black; 0..16 as of 255, 12 bits as of 16
RARE = 0.01  # up to this share of images of a single colour, or of test images seen in training, there is no warning
ENOUGH = 10_000  # number of images that are checked


def doubts(domain: Domain, labels: bool = True) -> list[str]:
    """Return warnings about a domain, one sentence each, to be shown before any training.

    Args:
        labels: whether the domain's labels are used.
    """
    warnings = list(domain.notes)
    for split, why in (("train", "cannot be learned"), ("test", "is not tested")):
        images, prefix = getattr(domain, split), f"domain '{domain.name}': "
        if labels:
            warnings += [prefix + text for text in _absent(images.y, domain.classes, split, why)]
        if domain.modality.box is not None:
            warnings += [prefix + text for text in _odd(images, split, domain.modality.box)]
    return warnings + _seen(domain)


def _absent(y: Tensor, classes: int, split: str, why: str) -> list[str]:
    """Return a warning about classes without an image, if there are any."""
    empty = (torch.bincount(y, minlength=classes) == 0).nonzero().flatten().tolist()
    if not empty:
        return []
    some = ", ".join(map(str, empty[:8])) + (", ..." if len(empty) > 8 else "")
    return [f"{len(empty)} of {classes} classes have no {split} image: what has none {why} ({some})"]


def _seen(domain: Domain) -> list[str]:
    """Return a warning about test images that are training images, too, bit by bit."""
    if domain.modality.box is None:
        return []
    known = {*_hashes(domain.train.x), *_hashes(domain.val.x)}
    test = _hashes(domain.test.x[:ENOUGH])
    seen = sum(value in known for value in test)
    found = f"domain '{domain.name}': {seen} of {len(test)} test images are training images, too"
    return [found] if seen > RARE * len(test) else []


def _hashes(x: Tensor) -> list[int]:
    """Return a hash of every image's bytes."""
    return [hash(image.tobytes()) for image in x.flatten(1).contiguous().view(torch.uint8).numpy()]


def _odd(images: Images, split: str, box: tuple[float, float]) -> list[str]:
    """Return a warning about images outside the box, of almost constant pixels, or of a single colour."""
    x = images.x[:ENOUGH]
    low, high = (value.item() / (255 if x.dtype == torch.uint8 else 1) for value in x.aminmax())
    if low < box[0] or high > box[1]:
        return [f"the {split} images lie in {low:.6g}..{high:.6g}, and not in {box[0]:g}..{box[1]:g}"]
    if high - low < NARROW:
        colour = {0.0: "black", 1.0: "white"}.get(low, f"{low:.4g} everywhere") if low == high else ""
        where = f"are all {colour}" if colour else f"show nothing: their pixels lie in {low:.4g}..{high:.4g} of 0..1"
        return [f"the {split} images {where}; were they scaled wrongly?"]
    pixels = x.flatten(2)
    if pixels.shape[2] == 1:
        return []
    blank = (pixels.amax(2) == pixels.amin(2)).all(1).sum().item()
    return [f"{blank} of {len(x)} {split} images are of one colour"] if blank > RARE * len(x) else []
