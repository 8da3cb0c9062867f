"""What an image should look like."""

from dfkd.priors.balance import Balance
from dfkd.priors.base import Prior, PriorTerm, View
from dfkd.priors.bn import BatchNormPrior
from dfkd.priors.bn_ema import BatchNormEMA
from dfkd.priors.l2 import L2
from dfkd.priors.tv import TotalVariation

__all__ = ["L2", "Balance", "BatchNormEMA", "BatchNormPrior", "Prior", "PriorTerm", "TotalVariation", "View"]
