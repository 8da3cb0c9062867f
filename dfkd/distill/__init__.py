"""Distillation: losses, the student, its training steps, and the loop around them.

May be imported by dfkd.stages and later rooms.
"""

from dfkd.distill.feature_losses import FeatureLoss, Hint
from dfkd.distill.loop import Distillation
from dfkd.distill.losses import KL, L1, MSE, CrossEntropy, Loss
from dfkd.distill.siblings import SiblingDistillation
from dfkd.distill.student import Student
from dfkd.distill.trainer import Trainer, steps_per_epoch

__all__ = [
    "KL",
    "L1",
    "MSE",
    "CrossEntropy",
    "Distillation",
    "FeatureLoss",
    "Hint",
    "Loss",
    "SiblingDistillation",
    "Student",
    "Trainer",
    "steps_per_epoch",
]
