"""Distillation losses of every image: (student logits (B, C), teacher logits (B, C)) -> (B,)."""

from abc import ABC, abstractmethod

import torch.nn.functional as F
from torch import Tensor


class Loss(ABC):
    """What a student is trained to make small: how far its answer to an image is from the teacher's.

    A loss of one's own is a subclass with `__call__`, and a file loss/NAME.yaml whose `_target_` names it; the options
    of its constructor stand in that file. One that also compares features is a `dfkd.distill.FeatureLoss`.

    The loss of an image depends on that image alone: a defense leaves images out of the mean, and several GPUs share a
    batch. It is a pure function of its arguments, without random numbers, branches on values, `.item()` or memory, so
    that `student.replicas` can train many students in one program.
    """

    @abstractmethod
    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss of every image (B,), to be differentiated by the student.

        Args:
            student: logits (B, C), float32.
            teacher: logits (B, C), float32, without a graph.
        """


class KL(Loss):
    """T^2 KL(softmax(t / T) || softmax(s / T)) (Hinton et al., arXiv 1503.02531).

    Args:
        temperature: T.
        squared: keep the factor T^2, without which the gradient shrinks with T^2.

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
    """Cross-entropy with the teacher's answer as the label, as CAKE trains its students.

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
    """mean_c |s_c - t_c| of the logits, as DFAD trains its students (arXiv 1912.11006): no softmax forgives a shift."""

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        return (student - teacher).abs().mean(1)


class MSE(Loss):
    """mean_c (s_c - t_c)^2 of the logits (Ba and Caruana, arXiv 1312.6184)."""

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        return (student - teacher).square().mean(1)
