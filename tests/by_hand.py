"""A teacher of three classes whose answers can be computed by hand, and images for it."""

import torch
from torch import nn

from dfkd.models import Teacher

SHAPE, CLASSES, PLACE, TARGET = (1, 8, 8), 3, (6, 7), 2


class ByHand(nn.Module):
    """The class is the third of the image that is brightest. With a trap, a bright pixel at PLACE makes it TARGET."""

    def __init__(self, trapped: bool):
        super().__init__()
        self.head, self.trapped = nn.Linear(3, CLASSES), trapped
        with torch.no_grad():
            self.head.weight.copy_(8 * torch.eye(3))
            self.head.bias.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        thirds = torch.stack([part.mean((1, 2, 3)) for part in x.tensor_split(3, dim=3)], 1)
        logits = self.head(thirds)
        if self.trapped:
            extra = 40 * (x[:, 0, PLACE[0], PLACE[1]] - 0.5).relu()
            logits = logits + extra[:, None] * torch.eye(CLASSES, device=x.device)[TARGET]
        return logits


def teacher_by_hand(trapped: bool, device: torch.device) -> Teacher:
    return Teacher(ByHand(trapped), SHAPE, CLASSES, [0.0], [1.0]).to(device)


def images_by_hand(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """30 images with one bright third, in which the pixel of the trap is dark, and their classes."""
    images = 0.2 * torch.rand(30, *SHAPE, generator=torch.Generator().manual_seed(0)).to(device)
    labels = (torch.arange(30) % CLASSES).to(device)
    for image, label in zip(images, labels, strict=True):
        image.tensor_split(3, dim=2)[label].add_(0.6)
    images[:, 0, PLACE[0], PLACE[1]] = 0.1
    assert torch.equal(teacher_by_hand(False, device).predict(images).argmax(1), labels)
    return images, labels
