"""Numbers of the last layer that stand out for one class.

HTell (arXiv 2605.18908) and DFBScanner (arXiv 2605.18907) look at nothing else. Only their abstracts are public, so
this is their idea and not their method.
"""

import torch
from torch import Tensor

from dfkd.models import Teacher
from dfkd.models.hooks import classifier_head


def sum_of_weights(teacher: Teacher) -> Tensor:
    """Return for every class the sum of its positive weights in the last layer (classes,): a class to which a trigger
    leads has features that speak for it alone. Zeros for a network without a linear head."""
    try:
        weight = classifier_head(teacher.net).weight
    except ValueError:
        return torch.zeros(teacher.classes, device=teacher.mean.device)
    return weight.detach().float().clamp(min=0).sum(1)
