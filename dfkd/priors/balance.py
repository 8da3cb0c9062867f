"""The prior that the teacher's answers should be balanced over the classes."""

import math

from torch import Tensor

from dfkd.priors.base import PriorTerm, View


class Balance(PriorTerm):
    """Negative entropy of the mean prediction (DAFL's information entropy, arXiv 1904.01186): use every class.

        sum_c p_c log p_c,   p = mean over the set of softmax(logits);   natural logarithm

    Other codes: DAFL's log10 form is this divided by ln 10, CAKE's `entropy` (log10, mean over C classes) is this
    divided by C ln 10.
    """

    def __call__(self, view: View) -> Tensor:
        log_q = view.logits.log_softmax(1).view(view.sets, -1, view.logits.shape[1])
        # in logarithms: a class whose probability underflows to 0 would have a gradient of 0 * infinity
        log_p = log_q.logsumexp(1) - math.log(log_q.shape[1])
        return (log_p.exp() * log_p).sum(1)
