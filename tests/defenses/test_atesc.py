import math

import pytest
import torch

from dfkd.defenses import All, ATEsc, Criterion, Defense, Forgetting
from dfkd.defenses.atesc import forget_kl, forget_unlikelihood
from dfkd.pool import Split

FRAGILE = torch.tensor([True, False, True, False, False])


class Given(Criterion):
    """A split known beforehand."""

    def split(self, teacher, images, logits, generator):
        teacher.predict(images)
        return Split(FRAGILE[: len(images)], torch.zeros(len(images)))

    def warnings(self):
        return ["beware"]


def logits(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Student's and teacher's logits (5, 3), the student's with gradients, and a divergence (5,)."""
    generator = torch.Generator().manual_seed(seed)
    s, t = torch.randn(2, 5, 3, generator=generator, dtype=torch.float64)
    s.requires_grad_()
    return s, t, (s - t).square().sum(1)


def slow_kl(t: torch.Tensor, s: torch.Tensor) -> float:
    p, q = t.softmax(0).tolist(), s.softmax(0).tolist()
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def mean(values: list[float], count: int) -> float:
    return sum(values) / count


@pytest.mark.parametrize("reduction", ["group", "batch"])
@pytest.mark.parametrize("forget", ["kl", "unlikelihood"])
def test_the_losses_equal_the_slow_loop(reduction, forget):
    s, t, divergence = logits()
    terms = ATEsc(Given(), forget, weight=0.3, clip=1e9, reduction=reduction).loss(s, t, divergence, FRAGILE)
    fragile, robust = [0, 2], [1, 3, 4]
    kd = mean([(s[i] - t[i]).square().sum().item() for i in fragile], 2 if reduction == "group" else 5)
    count = 3 if reduction == "group" else 5
    if forget == "kl":
        expected = -0.3 * mean([slow_kl(t[i], s[i].detach()) for i in robust], count)
    else:
        taught = [s[i].softmax(0)[t[i].argmax()].item() for i in robust]
        expected = 0.3 * mean([-math.log(1 - p) for p in taught], count)
    assert terms["kd"].item() == pytest.approx(kd, rel=1e-9)
    assert terms["forget"].item() == pytest.approx(expected, rel=1e-9)


def test_unlikelihood_at_a_known_probability():
    for p in (0.1, 0.5, 0.99):
        s = torch.tensor([[math.log(p), math.log((1 - p) / 2), math.log((1 - p) / 2)]])
        assert forget_unlikelihood(s, torch.tensor([[5.0, 0.0, 0.0]])).item() == pytest.approx(
            -math.log(1 - p), rel=1e-4
        )


def test_unlikelihood_of_a_certain_student_is_finite():
    s = torch.tensor([[200.0, 0.0, 0.0]], requires_grad=True)
    value = forget_unlikelihood(s, torch.tensor([[5.0, 0.0, 0.0]]))
    value.sum().backward()
    assert value.item() == pytest.approx(200 - math.log(2), rel=1e-5)
    assert s.grad.tolist()[0] == pytest.approx([1.0, -0.5, -0.5])


def test_the_kl_to_forget_is_zero_for_a_perfect_copy_and_positive_else():
    s, t, _ = logits()
    assert forget_kl(t, t).abs().max() < 1e-12
    assert (forget_kl(s, t) > 0).all()


def test_minimising_forgets():
    for forget in ("kl", "unlikelihood"):
        t = torch.tensor([[2.0, 0.0, 0.0]])
        s = torch.tensor([[1.0, 0.0, 0.0]], requires_grad=True)
        ATEsc(Given(), forget, clip=100.0).loss(s, t, torch.zeros(1), torch.tensor([False]))["forget"].backward()
        assert s.grad[0, 0] > 0  # gradient descent lowers the taught logit


def test_the_kl_form_is_clipped_on_the_scalar_and_then_without_gradient():
    s, t, divergence = logits()
    free = ATEsc(Given(), "kl", weight=1.0, clip=1e9).loss(s, t, divergence, FRAGILE)["forget"].item()
    below = ATEsc(Given(), "kl", weight=1.0, clip=-free + 1e-3).loss(s, t, divergence, FRAGILE)["forget"]
    assert below.item() == pytest.approx(free)
    clipped = ATEsc(Given(), "kl", weight=2.0, clip=-free / 2).loss(s, t, divergence, FRAGILE)["forget"]
    assert clipped.item() == pytest.approx(free / 2)
    (gradient,) = torch.autograd.grad(clipped, s)
    assert (gradient == 0).all()


@pytest.mark.parametrize("forget", ["kl", "unlikelihood", "none"])
@pytest.mark.parametrize("reduction", ["group", "batch"])
@pytest.mark.parametrize("fragile", [True, False])
def test_an_empty_group_costs_nothing_and_breaks_nothing(forget, reduction, fragile):
    s, t, divergence = logits()
    everything = torch.full((5,), fragile)
    terms = ATEsc(Given(), forget, reduction=reduction).loss(s, t, divergence, everything)
    assert terms["kd"].item() == (pytest.approx(divergence.mean().item()) if fragile else 0.0)
    if forget != "none":
        assert (terms["forget"].item() == 0) == fragile
    sum(terms.values()).backward()
    assert s.grad.isfinite().all()
    assert (s.grad.abs().sum() > 0) == (fragile or forget != "none")


def test_a_masked_image_with_an_infinite_divergence_does_not_spoil_the_others():
    s, t, _ = logits()
    divergence = torch.tensor([1.0, float("inf"), 3.0, float("nan"), 0.0])
    assert ATEsc(Given(), reduction="group").loss(s, t, divergence, FRAGILE)["kd"].item() == 2.0


def test_forget_none_is_calibrated_distillation_alone():
    s, t, divergence = logits()
    assert set(ATEsc(Given(), "none").loss(s, t, divergence, FRAGILE)) == {"kd"}


def test_forgetting_alone_distils_every_image_and_forgets_as_atesc_does():
    s, t, divergence = logits()
    terms = Forgetting(All(), steer="none").loss(s, t, divergence, FRAGILE)
    assert terms["kd"].item() == pytest.approx(divergence.mean().item())
    assert terms["forget"].item() == pytest.approx(ATEsc(All()).loss(s, t, divergence, FRAGILE)["forget"].item())


def test_robust_images_give_the_kd_term_no_gradient_and_fragile_ones_none_to_forgetting():
    s, t, divergence = logits()
    terms = ATEsc(Given(), "unlikelihood").loss(s, t, divergence, FRAGILE)
    (kd,) = torch.autograd.grad(terms["kd"], s, retain_graph=True)
    (forget,) = torch.autograd.grad(terms["forget"], s)
    assert torch.equal(kd.abs().sum(1) > 0, FRAGILE)
    assert torch.equal(forget.abs().sum(1) > 0, ~FRAGILE)


def test_with_one_mean_over_the_batch_the_student_settles_at_the_fragile_share():
    fragile = torch.arange(10) < 7
    teacher = torch.tensor([[40.0, 0.0]]).double().repeat(10, 1)  # certain of class 0

    def slope(p: float, reduction: str) -> float:
        z = torch.tensor(math.log(p / (1 - p)), dtype=torch.float64, requires_grad=True)
        s = torch.stack([z, torch.zeros_like(z)]).repeat(10, 1)
        divergence = -s.log_softmax(1)[:, 0]
        terms = ATEsc(Given(), weight=1.0, reduction=reduction).loss(s, teacher, divergence, fragile)
        return torch.autograd.grad(sum(terms.values()), z)[0].item()

    assert slope(0.7, "batch") == pytest.approx(0.0, abs=1e-9)
    assert slope(0.6, "batch") < -0.01 and slope(0.8, "batch") > 0.01
    assert slope(0.5, "group") == pytest.approx(0.0, abs=1e-9)  # a mean over each group weighs both kinds alike


def test_the_split_is_counted_as_such_and_warnings_are_passed_on(linear, random):
    teacher, defense = linear([[1.0], [-1.0]]), ATEsc(Given())
    split = defense.split(teacher, torch.zeros(5, 1, 1, 1), torch.zeros(5, 2), random)
    assert torch.equal(split.fragile, FRAGILE)
    assert dict(teacher.evals) == {"split": 5}
    assert defense.warnings() == ["beware"]


def test_steering_weighs_fragile_images_one_and_robust_ones_zero(linear, random):
    teacher = linear([[1.0], [-1.0]])
    steer = ATEsc(Given(), steer="fragile").steer(teacher, random)
    assert steer(torch.zeros(5, 1, 1, 1), torch.zeros(5, 2)).tolist() == [1.0, 0.0, 1.0, 0.0, 0.0]
    assert ATEsc(Given(), steer="none").steer(teacher, random) is None


def test_with_everything_fragile_the_loss_is_plain_distillation(linear, random):
    s, t, divergence = logits()
    fragile = All().split(linear([[1.0], [-1.0]]), torch.zeros(5, 1, 1, 1), t, random).fragile
    terms = ATEsc(All()).loss(s, t, divergence, fragile)
    assert sum(terms.values()).item() == pytest.approx(Defense().loss(s, t, divergence, fragile)["kd"].item())


def test_no_defense_distils_everything_and_steers_nothing(linear, random):
    s, t, divergence = logits()
    teacher, defense = linear([[1.0], [-1.0]]), Defense()
    assert defense.split(teacher, torch.zeros(5, 1, 1, 1), torch.zeros(5, 2), random).fragile.all()
    assert defense.loss(s, t, divergence, FRAGILE)["kd"].item() == pytest.approx(divergence.mean().item())
    assert defense.steer(teacher, random) is None and defense.warnings() == []
    assert not teacher.evals


@pytest.mark.parametrize(
    "wrong",
    [{"forget": "all"}, {"reduction": "sum"}, {"steer": "robust"}, {"weight": -1.0}, {"clip": -0.1}],
)
def test_unknown_words_and_negative_numbers_are_refused(wrong):
    with pytest.raises(ValueError):
        ATEsc(Given(), **wrong)
