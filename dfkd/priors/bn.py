"""BatchNorm statistics."""

from torch import Tensor

from dfkd.priors.base import PriorTerm, View


class BatchNormPrior(PriorTerm):
    """Synthetic batches should look to every BatchNorm layer as its training data did (DeepInversion, 1912.08795).

        sum over layers of || running_var - Var(h) ||_2 + || running_mean - Mean(h) ||_2

    h is the layer's input; Mean and biased Var are taken over batch and positions. The norms are not squared and not
    averaged over channels, so the scale grows with the network's depth and width.
    """

    needs_batch_norm = True

    def __call__(self, view: View) -> Tensor:
        return sum((s.var - s.running_var).norm(dim=1) + (s.mean - s.running_mean).norm(dim=1) for s in view.statistics)
