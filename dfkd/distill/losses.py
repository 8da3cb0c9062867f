"""Distillation losses of every image: (student logits (B, C), teacher logits (B, C)) -> (B,)."""

import torch.nn.functional as F
from torch import Tensor


class KL:
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


class CrossEntropy:
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


class L1:
    """mean_c |s_c - t_c| of the logits, as DFAD trains its students (arXiv 1912.11006): no softmax forgives a shift."""

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        return (student - teacher).abs().mean(1)
