"""What the teacher answers to images that mean nothing."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dfkd.attacks import PGD
from dfkd.models import Teacher
from dfkd.scouts import Colours, Mixture, Shapes, SpectralNoise

RADIUS = 8 / 255
SURE = 0.5  # smallest confidence of an answer that counts as sure


@dataclass(frozen=True)
class Answers:
    """Answers to scouts.

    Attributes:
        images: the scouts (N, C, H, W).
        confidence: largest probability of each answer (N,).
        firm: share of the scouts to which each class is the answer, with a confidence above `SURE`, and which no step
            of `RADIUS` changes (classes,).
    """

    images: Tensor
    confidence: Tensor
    firm: Tensor


def draw_scouts(teacher: Teacher, count: int, stream: torch.Generator) -> Tensor:
    """Draw images (count, C, H, W) that mean nothing: noise, shapes and colours in equal parts."""
    kinds = {"noise": SpectralNoise(teacher.shape), "shapes": Shapes(teacher.shape), "colours": Colours(teacher.shape)}
    return Mixture(teacher.shape, kinds).draw(count, stream)


def answers_to_scouts(teacher: Teacher, count: int, steps: int, stream: torch.Generator) -> Answers:
    """Show `count` scouts and attack each answer with PGD at `RADIUS`."""
    images = draw_scouts(teacher, count, stream)
    logits = teacher.predict(images).float()
    confidence, answer = logits.softmax(1).max(1)
    flipped = PGD(eps=RADIUS, steps=steps, loss="margin").attack(teacher, images, stream, logits).flipped
    firm = torch.bincount(answer[~flipped & (confidence > SURE)], minlength=teacher.classes)
    return Answers(images, confidence, firm / count)
