"""A prior that balances the teacher's predictions over the classes."""

import math

from torch import Tensor

from dfkd.priors.base import PriorTerm, TeacherPass


class Balance(PriorTerm):
    """Negative entropy of the mean prediction (DAFL's information entropy, arXiv 1904.01186); lowest if all classes are
    equally frequent.

        sum_c p_c log p_c,   p = mean over the set of softmax(logits);   natural logarithm

    Scales in other code: DAFL uses log10, which is this divided by ln 10; CAKE's `entropy` uses log10 and a mean over C
    classes, which is this divided by C ln 10.
    """

    def __call__(self, teacher_pass: TeacherPass) -> Tensor:
        log_q = teacher_pass.logits.log_softmax(1).view(teacher_pass.sets, -1, teacher_pass.logits.shape[1])
        # Computed with logarithms: a probability that underflows to 0 would have the gradient 0 * infinity.
        log_p = log_q.logsumexp(1) - math.log(log_q.shape[1])
        return (log_p.exp() * log_p).sum(1)
