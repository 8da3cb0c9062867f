"""How well a score tells two groups apart, such as members from others, or trapped teachers from clean ones."""

from collections.abc import Sequence

import torch
from torch import Tensor

Scores = Tensor | Sequence[float]


def auroc(members: Scores, others: Scores) -> float:
    """Return the area under the ROC curve in [0, 1]: the probability that a member has the larger score, where equal
    scores count one half.

    Args:
        members, others: scores (M,) and (N,); larger means "more like a member".
    """
    members, ordered = _double(members), _double(others).sort().values
    below = torch.searchsorted(ordered, members, right=False)
    up_to = torch.searchsorted(ordered, members, right=True)
    return ((below + up_to).double().mean() / (2 * len(others))).item()


def tpr_at_fpr(members: Scores, others: Scores, fpr: float = 0.01) -> float:
    """Return the share of members, in [0, 1], above the smallest threshold that at most a share `fpr` of the others
    exceeds.

    Args:
        members, others: scores (M,) and (N,); larger means "more like a member".
        fpr: largest false positive rate, in [0, 1).
    """
    allowed = int(fpr * len(others))
    threshold = _double(others).sort(descending=True).values[allowed]
    return (_double(members) > threshold).double().mean().item()


def _double(scores: Scores) -> Tensor:
    return torch.as_tensor(scores, dtype=torch.float64)
