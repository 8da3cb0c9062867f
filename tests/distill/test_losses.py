import pytest
import torch
import torch.nn.functional as F

from dfkd.distill import KL, L1, MSE, CrossEntropy


@pytest.fixture
def logits(random):
    s, t = torch.randn(2, 6, 4, generator=random, dtype=torch.float64) * 3
    return s.requires_grad_(), t


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
def test_kl_equals_torchs(logits, temperature):
    s, t = logits
    expected = F.kl_div((s / temperature).log_softmax(1), (t / temperature).softmax(1), reduction="none").sum(1)
    assert torch.allclose(KL(temperature)(s, t), temperature**2 * expected)
    assert torch.allclose(KL(temperature, squared=False)(s, t), expected)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_gradient_of_kl_is_the_difference_of_the_probabilities_times_temperature(logits, temperature):
    s, t = logits
    (gradient,) = torch.autograd.grad(KL(temperature)(s, t).sum(), s)
    expected = temperature * ((s / temperature).softmax(1) - (t / temperature).softmax(1))
    assert torch.allclose(gradient, expected.detach())


def test_kl_is_zero_only_for_a_copy(logits):
    s, t = logits
    assert KL(4.0)(t + 7.0, t).abs().max() < 1e-10
    assert (KL(4.0)(s, t) > 0).all()


def test_kl_of_certain_teachers_is_finite():
    s, t = torch.tensor([[0.0, 300.0]], requires_grad=True), torch.tensor([[300.0, 0.0]])
    value = KL()(s, t)
    value.sum().backward()
    assert value.item() == pytest.approx(300.0)
    assert s.grad.isfinite().all()


def test_cross_entropy_with_soft_labels(logits):
    s, t = logits
    expected = -(t.softmax(1) * s.log_softmax(1)).sum(1)
    assert torch.allclose(CrossEntropy("soft")(s, t), expected)


def test_cross_entropy_with_hard_labels(logits):
    s, t = logits
    expected = torch.stack([-s.log_softmax(1)[i, t[i].argmax()] for i in range(6)])
    assert torch.allclose(CrossEntropy("hard")(s, t), expected)


def test_l1_is_the_mean_distance_of_the_logits(logits):
    s, t = logits
    expected = [sum(abs(a - b) for a, b in zip(s[i].tolist(), t[i].tolist(), strict=True)) / 4 for i in range(6)]
    assert L1()(s, t).tolist() == pytest.approx(expected)
    (gradient,) = torch.autograd.grad(L1()(s, t).sum(), s)
    assert torch.equal(gradient, (s - t).sign().detach() / 4)


def test_mse_is_the_mean_squared_distance_of_the_logits(logits):
    s, t = logits
    expected = [sum((a - b) ** 2 for a, b in zip(s[i].tolist(), t[i].tolist(), strict=True)) / 4 for i in range(6)]
    assert MSE()(s, t).tolist() == pytest.approx(expected)


def test_impossible_options_are_refused():
    for wrong in (lambda: KL(0.0), lambda: KL(-1.0), lambda: CrossEntropy("smooth")):
        with pytest.raises(ValueError):
            wrong()
