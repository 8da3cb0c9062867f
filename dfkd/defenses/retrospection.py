"""The self-retrospection of ABD (Hong et al., ICML 2023, arXiv 2306.02368): the student unlearns its response to a
universal perturbation, by the implicit hypergradient of I-BAU (Zeng et al., ICLR 2022, arXiv 2110.03735)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dfkd.training.optimizers import fused


def divergence(clean: Tensor, other: Tensor) -> Tensor:
    """KL(softmax clean || softmax other) of every image (B,); no gradient passes `clean`."""
    p, q = clean.detach().log_softmax(1), other.log_softmax(1)
    return (p.exp() * (p - q)).sum(1)


def universal_perturbation(
    net: Callable[[Tensor], Tensor],
    images: Tensor,
    generator: torch.Generator,
    steps: int = 10,
    lr: float = 0.1,
    start: float = 1e-3,
) -> Tensor:
    """Find one perturbation of all images, argmax_d mean_i KL(net(x_i) || net(x_i + d)), by Adam; d is unbounded.

    Args:
        net: images (B, C, H, W) -> logits; its parameters get no gradients.
        generator: draws the initial d.
        steps, lr: number of steps and learning rate of Adam.
        start: the initial d is uniform in [-start, start]; at d = 0 the KL is minimal and its gradient is zero.

    Returns:
        d, (1, C, H, W).
    """
    noise = torch.rand((1, *images.shape[1:]), generator=generator, device=images.device)
    delta = (start * (2 * noise - 1)).requires_grad_()
    optimizer = fused(torch.optim.Adam, [delta], lr=lr)
    with torch.no_grad():
        clean = net(images)
    for _ in range(steps):
        (delta.grad,) = torch.autograd.grad(-divergence(clean, net(images + delta)).mean(), delta)
        optimizer.step()
    return delta.detach()


def hypergradient(
    outer: Callable[[Tensor], Tensor],
    inner: Callable[[Tensor], Tensor],
    delta: Tensor,
    parameters: Sequence[Tensor],
    step: float = 0.1,
    iterations: int = 5,
) -> tuple[Tensor, list[Tensor]]:
    """Compute the gradient of outer(d*(w), w) with respect to the parameters w, where d*(w) minimises inner(d, w).

    d* is a fixed point of the gradient step P(d, w) = d - step * grad_d inner(d, w). By fixed-point iteration (Grazzi
    et al., ICML 2020, arXiv 2006.16218):

        v_1 = grad_d outer,   v_k+1 = (dP/dd)^T v_k + grad_d outer,   result = grad_w outer + (dP/dw)^T v_iterations

    Args:
        outer, inner: scalar functions of d. They use w as a closure and are differentiable in d and w (inner: twice).
        delta: d, near the minimum of inner.
        parameters: w, with requires_grad=True.
        step: step size of P.
        iterations: number of iterates v_k, at least 1.

    Returns:
        the value of outer, and one gradient per parameter.
    """
    delta = delta.detach().requires_grad_()
    (slope,) = torch.autograd.grad(inner(delta), delta, create_graph=True)
    mapped = delta - step * slope
    value = outer(delta)
    # zeros where a function does not depend on a parameter
    by_delta, *direct = torch.autograd.grad(value, [delta, *parameters], allow_unused=True, materialize_grads=True)
    v = by_delta
    for _ in range(iterations - 1):
        (moved,) = torch.autograd.grad(mapped, delta, v, retain_graph=True)
        v = moved + by_delta
    implicit = torch.autograd.grad(mapped, list(parameters), v, allow_unused=True, materialize_grads=True)
    return value.detach(), [a + b for a, b in zip(direct, implicit, strict=True)]
