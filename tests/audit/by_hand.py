"""A teacher of three classes whose answers can be computed by hand."""

import torch
from torch import nn

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
            logits = logits + extra[:, None] * torch.eye(CLASSES)[TARGET]
        return logits
