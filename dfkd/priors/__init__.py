"""Priors: loss terms that make synthetic images look like training images, for synthesizers.

May be imported by dfkd.synthesizers and later rooms.
"""

from dfkd.priors.activation import Activation
from dfkd.priors.balance import Balance
from dfkd.priors.base import Prior, PriorTerm, TeacherPass
from dfkd.priors.bn import BatchNormPrior
from dfkd.priors.bn_ema import BatchNormEMA
from dfkd.priors.l2 import L2
from dfkd.priors.mean_image import MeanImage
from dfkd.priors.patch_entropy import PatchEntropy
from dfkd.priors.tv import DiagonalTotalVariation, TotalVariation, TotalVariationL2

__all__ = [
    "L2",
    "Activation",
    "Balance",
    "BatchNormEMA",
    "BatchNormPrior",
    "DiagonalTotalVariation",
    "MeanImage",
    "PatchEntropy",
    "Prior",
    "PriorTerm",
    "TeacherPass",
    "TotalVariation",
    "TotalVariationL2",
]
