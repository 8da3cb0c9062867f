"""Criteria that threshold a score of the clean image, without an attack."""

from abc import abstractmethod

import torch
from torch import Tensor, nn

from dfkd.defenses.criteria import Criterion
from dfkd.defenses.threshold import Threshold
from dfkd.models import Teacher, batch_norms, watch_batch_norms
from dfkd.pool import Split


class Score(Criterion):
    """Fragile = the score lies on one side of a threshold. A subclass computes the score in `score`.

    Args:
        value, quantile, fragile: arguments of `Threshold`; exactly one of value and quantile is given.
    """

    def __init__(self, value: float | None = None, quantile: float | None = None, fragile: str = "low"):
        self.threshold = Threshold(value, quantile, fragile)

    @abstractmethod
    def score(self, teacher: Teacher, images: Tensor, logits: Tensor) -> Tensor:
        """Compute the score of every image (B,), from images (B, C, H, W) and the teacher's logits (B, classes)."""

    def split(self, teacher: Teacher, images: Tensor, logits: Tensor, generator: torch.Generator) -> Split:
        with torch.no_grad():
            score = self.score(teacher, images, logits.float())
        return Split(self.threshold(score), score)


class Entropy(Score):
    """H(softmax t) = - sum_c p_c log p_c of the teacher's logits t, in nats, between 0 and log(classes)."""

    def score(self, teacher: Teacher, images: Tensor, logits: Tensor) -> Tensor:
        log_p = logits.log_softmax(1)
        return -(log_p.exp() * log_p).sum(1)


class Confidence(Score):
    """max_c softmax(t)_c, between 1 / classes and 1 (Hendrycks and Gimpel, ICLR 2017, arXiv 1610.02136)."""

    def score(self, teacher: Teacher, images: Tensor, logits: Tensor) -> Tensor:
        return logits.softmax(1).amax(1)


class Margin(Score):
    """Largest logit minus the second largest, at least 0: the gap that an attack has to close."""

    def score(self, teacher: Teacher, images: Tensor, logits: Tensor) -> Tensor:
        first, second = logits.topk(2, dim=1).values.unbind(1)
        return first - second


class FeatureDistance(Score):
    """Distance of one image's features to the running statistics of the teacher's BatchNorm layers,

        mean_l mean_c (m_lc(x) - mean_lc)^2 / (var_lc + 1e-5),

    where m_lc(x) is the mean over positions of the input of layer l, channel c. At least 0. Costs one more forward
    pass of the teacher.
    """

    def check(self, network: nn.Module) -> None:
        if not batch_norms(network):
            raise ValueError(
                "criterion=feature_distance compares with BatchNorm statistics, but the teacher's network has no "
                "BatchNorm layer; choose another criterion, or a teacher with BatchNorm (cnn_bn, resnet18, ...)"
            )

    def score(self, teacher: Teacher, images: Tensor, logits: Tensor) -> Tensor:
        with watch_batch_norms(teacher.net, sets=len(images)) as statistics:  # statistics of each image alone
            teacher(images)
        distances = [
            ((layer.mean - layer.running_mean).square() / (layer.running_var + 1e-5)).mean(1) for layer in statistics
        ]
        return torch.stack(distances).mean(0)
