"""An ordinary teacher without a trap."""

import torch.nn.functional as F
from torch import Tensor

from dfkd.domains import Images
from dfkd.models import Classifier
from dfkd.teachers.base import TrainedTeacher


class Supervised(TrainedTeacher):
    """A teacher trained with cross-entropy on the ID domain."""

    mean_loss = True

    @property
    def loss_is_pure(self) -> bool:
        return type(self).loss is Supervised.loss

    def loss(
        self, model: Classifier, id_batch: Images, ood_batch: Images | None, ood_label: int | None
    ) -> dict[str, Tensor]:
        return {"id": F.cross_entropy(model(id_batch.x).float(), id_batch.y)}
