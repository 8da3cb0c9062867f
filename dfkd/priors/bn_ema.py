"""BatchNorm statistics, smoothed over the rounds."""

from torch import Tensor

from dfkd.priors.base import PriorTerm, View
from dfkd.priors.bn import distance


class BatchNormEMA(PriorTerm):
    """The BN prior of Fast (arXiv 2112.06253): all rounds together should look as the training data did.

        sum over layers of || running_var - v ||_2 + || running_mean - m ||_2,
        m = (1 - momentum) * Mean(h) + momentum * Mean_ema,   v alike with the biased Var(h)

    h is the layer's input. In the first round there is no average yet, and the term is the plain BN prior; at the end
    of each round Mean_ema <- momentum * Mean_ema + (1 - momentum) * Mean(h), of the round's last look, detached. The
    gradient of a later round is therefore scaled by 1 - momentum. A start of the synthesis forgets the averages.

    Args:
        weight: of the term.
        momentum: of the averages, in [0, 1).

    Raises:
        ValueError: momentum outside [0, 1), or (when called) more than one set: sets know nothing of each other.
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
        self.memory: list[tuple[Tensor, Tensor]] | None = None  # of every layer: mean and variance (1, D)

    def remember(self, view: View) -> None:
        self.memory = [(mean.detach(), var.detach()) for mean, var in self._blended(view)]

    def __call__(self, view: View) -> Tensor:
        return distance(view.statistics, self._blended(view))

    def _blended(self, view: View) -> list[tuple[Tensor, Tensor]]:
        """Mean and variance of every layer, (1, D) each, pulled towards the averages."""
        if view.sets != 1:
            raise ValueError(f"the bn_ema prior takes one set at a time, got sets={view.sets}")
        now = [(s.mean, s.var) for s in view.statistics]
        if self.memory is None:
            return now
        m = self.momentum
        return [
            ((1 - m) * mean + m * old_mean, (1 - m) * var + m * old_var)
            for (mean, var), (old_mean, old_var) in zip(now, self.memory, strict=True)
        ]
