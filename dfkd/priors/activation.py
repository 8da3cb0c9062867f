"""The prior that penultimate features should be strongly activated."""

from torch import Tensor

from dfkd.priors.base import PriorTerm, View


class Activation(PriorTerm):
    """Real images excite the teacher's features more than others do (DAFL, arXiv 1904.01186).

        - mean_{n, d} |f_nd|,   f the penultimate features

    The mean is over images and features, so that the scale does not grow with the network's width.
    """

    needs_features = True

    def __call__(self, view: View) -> Tensor:
        return -view.features.abs().reshape(view.sets, -1).mean(1)
