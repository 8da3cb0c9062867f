"""Adversarial terms: a generator maximises the difference between student and teacher."""

from torch import Tensor


def adversarial_term(student_logits: Tensor, teacher_logits: Tensor, weights: Tensor | None = None) -> Tensor:
    """- mean_i w_i KL(softmax t_i || softmax s_i) (ZSKT, arXiv 1905.09768; DFQ, arXiv 2005.04136).

    Args:
        student_logits, teacher_logits: (B, C); gradients pass both.
        weights: (B,), in [0, 1]; None means 1. The mean divides by B, whatever the weights.
    """
    s, t = student_logits.log_softmax(1), teacher_logits.log_softmax(1)
    return _minus_mean((t.exp() * (t - s)).sum(1), weights)


def adversarial_l1(student_logits: Tensor, teacher_logits: Tensor, weights: Tensor | None = None) -> Tensor:
    """- mean_i w_i mean_c |s_ic - t_ic| of the logits (DFAD, arXiv 1912.11006); arguments as in `adversarial_term`."""
    return _minus_mean((student_logits - teacher_logits).abs().mean(1), weights)


def _minus_mean(divergence: Tensor, weights: Tensor | None) -> Tensor:
    return -(divergence if weights is None else weights * divergence).mean()
