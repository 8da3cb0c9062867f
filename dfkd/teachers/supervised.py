"""An ordinary teacher without a trap."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from dfkd.domains import Images
from dfkd.models import Classifier
from dfkd.teachers.base import TrainedTeacher


class Supervised(TrainedTeacher):
    """A teacher trained with cross-entropy on the ID domain.

    Args:
        label_smoothing: share of the target that is spread evenly over all classes, in [0, 1) (arXiv 1512.00567).
        args, kwargs: arguments of `TrainedTeacher`.

    Raises:
        ValueError: label_smoothing is out of range.
    """

    mean_loss = True

    def __init__(self, *args: Any, label_smoothing: float = 0.0, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1), got {label_smoothing}")
        self.label_smoothing = label_smoothing

    @property
    def loss_is_pure(self) -> bool:
        return type(self).loss is Supervised.loss

    def loss(
        self, model: Classifier, id_batch: Images, ood_batch: Images | None, ood_label: int | None
    ) -> dict[str, Tensor]:
        logits = model(id_batch.x).float()
        return {"id": F.cross_entropy(logits, id_batch.y, label_smoothing=self.label_smoothing)}
