import pytest
import torch

from dfkd.defenses.retrospection import divergence, hypergradient, universal_perturbation


def quadratic():
    """inner = d'Ad / 2 - d'Bw (so d* = A^-1 B w), outer = |d - c|^2 / 2 + rho |w|^2 / 2, and their parts."""
    generator = torch.Generator().manual_seed(0)
    root, b = torch.randn(3, 3, generator=generator).double(), torch.randn(3, 2, generator=generator).double()
    a, c = root @ root.T + torch.eye(3).double(), torch.randn(3, generator=generator).double()
    w = torch.randn(2, generator=generator).double().requires_grad_()

    def inner(d):
        return 0.5 * d @ a @ d - d @ b @ w

    def outer(d):
        return 0.5 * (d - c).square().sum() + 0.15 * w.square().sum()

    return a, b, c, w, inner, outer


@pytest.mark.parametrize("iterations", [1, 2, 5])
def test_the_hypergradient_is_the_truncated_neumann_series(iterations):
    a, b, c, w, inner, outer = quadratic()
    d, step = torch.linalg.solve(a, b @ w.detach()), 0.1
    value, (found,) = hypergradient(outer, inner, d, [w], step, iterations)
    slope, v = d - c, torch.zeros(3).double()
    for _ in range(iterations):
        v = (torch.eye(3).double() - step * a) @ v + slope
    expected = 0.3 * w.detach() + step * b.T @ v
    assert torch.allclose(found, expected)
    assert value.item() == pytest.approx(0.5 * slope.square().sum().item() + 0.15 * w.detach().square().sum().item())


def test_with_many_iterations_it_is_the_exact_implicit_gradient():
    a, b, _, w, inner, outer = quadratic()
    d = torch.linalg.solve(a, b @ w.detach())
    _, (found,) = hypergradient(outer, inner, d, [w], 0.1, 2000)
    exact = torch.autograd.grad(outer(torch.linalg.solve(a, b @ w)), w)[0]  # through the closed form of d*
    assert torch.allclose(found, exact, atol=1e-8)


def test_a_parameter_that_only_one_of_the_functions_knows():
    a, b, _, w, inner, _ = quadratic()
    other = torch.tensor(2.0).double().requires_grad_()
    d = torch.linalg.solve(a, b @ w.detach())
    _, (of_w, of_other) = hypergradient(lambda d: other.square() + d.sum(), inner, d, [w, other], 0.1, 500)
    assert of_other.item() == pytest.approx(4.0)
    assert torch.allclose(of_w, b.T @ torch.linalg.solve(a, torch.ones(3).double()), atol=1e-8)


def test_the_divergence_takes_the_clean_answers_as_given(random):
    clean, other = torch.randn(2, 4, 3, generator=random, dtype=torch.float64)
    clean.requires_grad_(), other.requires_grad_()
    found = divergence(clean, other)
    for i in range(4):
        p, q = clean[i].softmax(0), other[i].softmax(0)
        assert found[i].item() == pytest.approx(sum((p * (p / q).log()).tolist()), rel=1e-9)
    found.sum().backward()
    assert clean.grad is None and torch.allclose(other.grad, (other.softmax(1) - clean.softmax(1)).detach())


def test_one_perturbation_moves_all_images_where_the_network_looks(linear, random, unchanged):
    net = linear([[2.0, 0.0], [-2.0, 0.0]])  # blind for the second pixel
    check = unchanged(net)
    images = torch.rand(6, 1, 2, 1, generator=random)
    delta = universal_perturbation(net, images, random, steps=10, lr=0.1, start=1e-3)
    assert delta.shape == (1, 1, 2, 1) and not delta.requires_grad
    assert delta[0, 0, 1].abs() <= 1e-3  # as it started
    assert 0.5 < delta[0, 0, 0].abs() < 1.1  # ten steps of Adam
    assert divergence(net(images), net(images + delta)).mean() > 0.3
    check()


def test_more_steps_go_further_and_the_same_generator_the_same_way(teacher, random):
    images = torch.rand(8, 1, 8, 8, generator=random)

    def found(steps: int, seed: int = 0) -> torch.Tensor:
        return universal_perturbation(teacher, images, torch.Generator().manual_seed(seed), steps)

    short, long = (divergence(teacher(images), teacher(images + found(steps))).mean() for steps in (1, 10))
    assert long > short > 0
    assert torch.equal(found(2), found(2)) and not torch.equal(found(2), found(2, seed=1))
