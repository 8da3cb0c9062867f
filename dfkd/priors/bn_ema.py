"""A BatchNorm prior with statistics averaged over the rounds."""

from torch import Tensor

from dfkd.priors.base import PriorTerm, TeacherPass
from dfkd.priors.bn import distance


class BatchNormEMA(PriorTerm):
    """The BN prior of Fast (arXiv 2112.06253): the statistics of all rounds together should match the running ones.

        sum over layers of || running_var - v ||_2 + || running_mean - m ||_2,
        m = (1 - momentum) * Mean(h) + momentum * Mean_ema,   v likewise with the biased Var(h)

    h is the layer's input. In the first round there is no average yet, and the term equals the plain BN prior. At the
    end of each round Mean_ema <- momentum * Mean_ema + (1 - momentum) * Mean(h), detached, with h of the round's last
    forward pass. The gradient in later rounds is therefore scaled by 1 - momentum. `start` resets the averages.

    Args:
        weight: weight of the term.
        momentum: momentum of the averages, in [0, 1).

    Raises:
        ValueError: momentum is outside [0, 1), or (when called) there is more than one set, as sets are independent.
    """

    needs_batch_norm = True
    remembers = True

    def __init__(self, weight: float = 1.0, momentum: float = 0.9):
        super().__init__(weight)
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must lie in [0, 1), got {momentum}")
        self.momentum = momentum
        self.start()

    def start(self) -> None:
        self.memory: list[tuple[Tensor, Tensor]] | None = None  # averaged mean and variance of every layer, (1, D)

    def remember(self, teacher_pass: TeacherPass) -> None:
        self.memory = [(mean.detach(), var.detach()) for mean, var in self._blended(teacher_pass)]

    def __call__(self, teacher_pass: TeacherPass) -> Tensor:
        return distance(teacher_pass.statistics, self._blended(teacher_pass))

    def _blended(self, teacher_pass: TeacherPass) -> list[tuple[Tensor, Tensor]]:
        """Return m and v of every layer, (1, D) each."""
        if teacher_pass.sets != 1:
            raise ValueError(f"the bn_ema prior takes one set at a time, got sets={teacher_pass.sets}")
        now = [(s.mean, s.var) for s in teacher_pass.statistics]
        if self.memory is None:
            return now
        m = self.momentum
        return [
            ((1 - m) * mean + m * old_mean, (1 - m) * var + m * old_var)
            for (mean, var), (old_mean, old_var) in zip(now, self.memory, strict=True)
        ]
