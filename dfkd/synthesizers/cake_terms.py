"""The terms of CAKE's loss (Braun et al., AISTATS 2024, arXiv 2306.02090), for several sets at once."""

import torch
import torch.nn.functional as F
from torch import Tensor


def class_term(logits: Tensor, labels: Tensor) -> Tensor:
    """G * mean_{b, g} CE(f(x_bg), y_bg), for every set.

    Args:
        logits: (S, B, G, C), of S sets of B rows of G images.
        labels: (S, B, G).

    Returns:
        (S,).
    """
    sets, rows, groups, classes = logits.shape
    loss = F.cross_entropy(logits.reshape(-1, classes), labels.reshape(-1), reduction="none")
    return groups * loss.view(sets, rows * groups).mean(1)


def contrast_mse(logits: Tensor) -> Tensor:
    """1 / (B C) * sum_b sum_{i<j} || f_bi - f_bj ||^2, for every set; it pulls a row's images together in logit space.

    Computed as G / (B C) * sum_b sum_i || f_bi - mean_i f_bi ||^2, which is equal and costs O(G).

    Args:
        logits: (S, B, G, C).

    Returns:
        (S,).
    """
    groups = logits.shape[2]
    centred = logits - logits.mean(2, keepdim=True)
    return groups * centred.square().sum(2).mean((1, 2))


def contrast_snn(logits: Tensor, labels: Tensor, temperature: float = 1.0) -> Tensor:
    """G^2 / (2 SNN), SNN the soft-nearest-neighbour loss (arXiv 1902.01889), for every set; it mixes the classes.

        SNN = - mean_i log( sum_{j != i, y_j = y_i} e_ij / sum_{j != i} e_ij ),  e_ij = exp(-||f_i - f_j||^2 / T)

    over all B G images of a set. An image with no other image of its class contributes 0 to the mean.

    Args:
        logits: (S, B, G, C).
        labels: (S, B, G).

    Returns:
        (S,).
    """
    sets, rows, groups, classes = logits.shape
    f, y = logits.reshape(sets, -1, classes), labels.reshape(sets, -1)
    squared = (f[:, :, None] - f[:, None, :]).square().sum(3)
    count = rows * groups
    others = ~torch.eye(count, dtype=torch.bool, device=f.device)
    same = (y[:, :, None] == y[:, None, :]) & others
    score = -squared / temperature
    # Log of a ratio of sums. For distant logits both sums underflow to 0; logsumexp avoids 0 / 0.
    top = score.masked_fill(~same, -torch.inf).logsumexp(2)
    bottom = score.masked_fill(~others, -torch.inf).logsumexp(2)
    has_partner = same.any(2)
    log_ratio = torch.where(has_partner, top - bottom, torch.zeros_like(bottom))
    return 0.5 * groups**2 / (-log_ratio.mean(1)).clamp_min(1e-9)
