"""Class balance."""

import torch
from torch import Tensor

from dfkd.priors.base import PriorTerm, View


class Balance(PriorTerm):
    """Negative entropy of the mean prediction (DAFL's information entropy, arXiv 1904.01186): use every class.

        sum_c p_c log p_c,   p = mean over the set of softmax(logits);   natural logarithm

    Other codes: DAFL's log10 form is this divided by ln 10, CAKE's `entropy` (log10, mean over C classes) is this
    divided by C ln 10.
    """

    def __call__(self, view: View) -> Tensor:
        p = view.logits.softmax(1).view(view.sets, -1, view.logits.shape[1]).mean(1)
        return torch.special.xlogy(p, p).sum(1)
