"""Total variation."""

from torch import Tensor

from dfkd.priors.base import PriorTerm, View


class TotalVariation(PriorTerm):
    """Anisotropic total variation as CAKE computes it (arXiv 2306.02090): neighbouring pixels should be alike.

        mean_{n, c} [ mean |x[i+1, j] - x[i, j]| + mean |x[i, j+1] - x[i, j]| ]

    in the teacher's normalised space. Other codes sum or square: their weights differ by orders of magnitude.
    """

    def __call__(self, view: View) -> Tensor:
        x = view.inputs
        rows, columns = x.diff(dim=2).abs(), x.diff(dim=3).abs()
        # An image one pixel wide has no neighbours in that direction: an empty sum, not 0 / 0.
        per_image = sum(d.flatten(1).sum(1) / max(d[0].numel(), 1) for d in (rows, columns))
        return per_image.view(view.sets, -1).mean(1)
