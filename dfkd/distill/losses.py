"""Distillation losses per image: (student logits (B, C), teacher logits (B, C)) -> (B,)."""

from abc import ABC, abstractmethod

import torch.nn.functional as F
from torch import Tensor


class Loss(ABC):
    """A distillation loss: the distance between the student's and the teacher's logits, for every image.

    To add a loss, write a subclass with `__call__` and a file loss/NAME.yaml whose `_target_` names it and which sets
    the constructor's options. To compare features as well, derive from `dfkd.distill.FeatureLoss`.

    The loss of an image must depend on that image alone, because a defense excludes images from the mean and several
    GPUs share a batch. It must be a pure function without random numbers, branches on tensor values, `.item()` or
    state, because on a GPU a step is recorded once and then replayed (CUDA graphs).
    """

    @abstractmethod
    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the loss of every image (B,), differentiable with respect to the student's logits.

        Args:
            student: logits (B, C), float32.
            teacher: logits (B, C), float32, detached.
        """


class KL(Loss):
    """T^2 KL(softmax(t / T) || softmax(s / T)), student logits s, teacher logits t (Hinton et al., arXiv 1503.02531).

    Args:
        temperature: T, positive.
        squared: multiply by T^2. Without this factor the gradient shrinks like 1 / T^2.

    Raises:
        ValueError: temperature <= 0.
    """

    def __init__(self, temperature: float = 1.0, squared: bool = True):
        if temperature <= 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        self.temperature = temperature
        self.factor = temperature**2 if squared else 1.0

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        s = (student / self.temperature).log_softmax(1)
        t = (teacher / self.temperature).log_softmax(1)
        return self.factor * (t.exp() * (t - s)).sum(1)


class CrossEntropy(Loss):
    """Cross-entropy with the teacher's prediction as the label, as CAKE trains its students.

    Args:
        labels: 'soft' (softmax of the teacher's logits at temperature 1; CAKE calls them smooth) or 'hard' (argmax).

    Raises:
        ValueError: any other word.
    """

    def __init__(self, labels: str = "soft"):
        if labels not in ("soft", "hard"):
            raise ValueError(f"labels must be 'soft' or 'hard', got '{labels}'")
        self.labels = labels

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        target = teacher.softmax(1) if self.labels == "soft" else teacher.argmax(1)
        return F.cross_entropy(student, target, reduction="none")


class L1(Loss):
    """mean_c |s_c - t_c| of the logits, the student's loss in DFAD (arXiv 1912.11006).

    Unlike losses on softmax outputs, it changes when a constant is added to all logits.
    """

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        return (student - teacher).abs().mean(1)


class MSE(Loss):
    """mean_c (s_c - t_c)^2 of the logits (Ba and Caruana, arXiv 1312.6184)."""

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        return (student - teacher).square().mean(1)
