"""A surrogate answers as the criterion that it asks, for a share of the evaluations."""

import pytest
import torch

from dfkd.defenses import ATEsc, PGDFlip, Surrogate
from dfkd.defenses.criteria import Criterion
from dfkd.defenses.surrogate import fit_logistic, margins
from dfkd.pool import Split


class Below(Criterion):
    """Fragile where the margin is below a limit of its class; remembers what it was asked."""

    def __init__(self, limits: list[float]):
        self.limits, self.seen = torch.tensor(limits), []

    def split(self, teacher, images, logits, generator):
        self.seen.append(images)
        margin, label = margins(logits)
        return Split(margin < self.limits[label], margin)

    def warnings(self):
        return ["beware"]


def some(count: int, generator: torch.Generator, classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Images, and logits of margins between 0 and 4."""
    logits = torch.zeros(count, classes)
    label = torch.randint(classes, (count,), generator=generator)
    logits[torch.arange(count), label] = 4 * torch.rand(count, generator=generator)
    return torch.rand(count, 1, 2, 2, generator=generator), logits


def test_one_group_is_the_library_s_logistic_regression(random):
    from sklearn.linear_model import LogisticRegression

    x = torch.randn(80, generator=random)
    y = (x + torch.randn(80, generator=random) > 0.3).float()
    a, b = fit_logistic(x, y, torch.zeros(80, dtype=torch.long), 1, decay=0.5)[0].tolist()
    basis = torch.stack([x, torch.ones(80)], 1).tolist()  # decay falls on the shift, too
    plain = LogisticRegression(C=1 / 0.5, fit_intercept=False, tol=1e-8, max_iter=1000).fit(basis, y.tolist())
    assert [a, b] == pytest.approx(plain.coef_[0].tolist(), abs=1e-3)


def slow_fit(x, y, around, decay):
    """The same minimum by L-BFGS in float64."""
    w = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([w], max_iter=500, tolerance_grad=1e-12, line_search_fn="strong_wolfe")
    sign, x = 2 * y.double() - 1, x.double()

    def closure():
        optimizer.zero_grad()
        loss = torch.nn.functional.softplus(-sign * (w[0] * x + w[1])).sum()
        loss = loss + decay / 2 * (w - around.double()).square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return w.detach()


def test_every_group_has_its_own_minimum_and_an_empty_one_what_it_is_drawn_to(random):
    x, group = torch.randn(300, generator=random), torch.randint(3, (300,), generator=random)
    around = torch.tensor([-1.0, 0.5])
    y = torch.stack([x > 0, x < 1, torch.ones(300, dtype=torch.bool)])[group, torch.arange(300)].float()  # separable
    found = fit_logistic(x, y, group, 4, around=around, decay=0.3)
    for number in range(3):
        slow = slow_fit(x[group == number], y[group == number], around, 0.3)
        assert found[number].tolist() == pytest.approx(slow.tolist(), rel=1e-2, abs=1e-2)
    assert torch.allclose(found[3], around, atol=1e-5)


def test_it_learns_a_limit_for_every_class_and_asks_about_a_share(random):
    of = Below([1.0, 2.0, 3.0])
    criterion, wrong = Surrogate(of, share=0.125, memory=1024), []
    for _ in range(40):
        images, logits = some(128, random)
        found = criterion.split(None, images, logits, random).fragile
        wrong.append((found != Below([1.0, 2.0, 3.0]).split(None, images, logits, random).fragile).float().mean())
    assert [len(images) for images in of.seen] == [128, 128] + [16] * 38
    assert torch.stack(wrong[20:]).mean() < 0.05  # one limit for all classes would miss a fifth
    checked, missed = criterion.tally.sum(1).tolist()
    assert missed / checked < 0.05 and checked == 128 + 38 * 16
    assert criterion.warnings() == ["beware"]


def test_what_was_asked_is_answered_as_the_criterion_says(random):
    criterion = Surrogate(Below([2.0] * 3), share=0.25, memory=160)
    images, logits = some(40, random)
    criterion.split(None, images, logits, random)
    criterion.of = Below([0.0] * 3)  # against all that it has learned
    images, logits = some(40, random)
    found = criterion.split(None, images, logits, random)
    asked = (images[:, None] == criterion.of.seen[0][None]).flatten(2).all(2).any(1)
    assert asked.sum() == 10
    assert not found.fragile[asked].any() and found.fragile[~asked].any()
    assert torch.equal(found.fragile[~asked], found.score[~asked] > 0)


def test_it_says_when_margins_do_not_tell(random):
    class Chance(Below):
        def split(self, teacher, images, logits, generator):
            return Split(torch.rand(len(images), generator=generator) < 0.5, logits[:, 0])

    criterion = Surrogate(Chance([]), share=0.5, memory=64)
    for _ in range(20):
        criterion.split(None, *some(64, random), random)
    assert any("wrong on" in said for said in criterion.warnings())


def test_it_names_a_class_in_which_margins_do_not_tell(random):
    class ChanceInOne(Below):
        def split(self, teacher, images, logits, generator):
            found = super().split(teacher, images, logits, generator)
            chance = torch.rand(len(images), generator=generator) < 0.5
            return Split(torch.where(logits.argmax(1) == 2, chance, found.fragile), found.score)

    criterion = Surrogate(ChanceInOne([2.0] * 8), share=0.5, memory=256)
    for _ in range(40):
        criterion.split(None, *some(64, random, classes=8), random)
    assert ["of class 2" in said for said in criterion.warnings() if "wrong on" in said] == [True]


def test_it_forgets_what_is_old(random):
    criterion = Surrogate(Below([1.0] * 3), share=1.0, memory=64)
    criterion.split(None, *some(64, random), random)
    criterion.of = Below([3.0] * 3)
    for _ in range(4):
        criterion.split(None, *some(64, random), random)
    images, logits = some(200, random)
    guess = criterion.guess(None, images, logits, random)
    assert (guess == Below([3.0] * 3).split(None, images, logits, random).fragile).float().mean() > 0.9
    assert len(criterion.answers) == 64


def test_a_generator_is_steered_without_asking(teacher, small_digits, random):
    images = small_digits.val.pixels(slice(0, 200))
    logits = teacher.predict(images)
    defense = ATEsc(Surrogate(PGDFlip(eps=16 / 255, steps=3, box=(0.0, 1.0)), memory=400))
    steer, before = defense.steer(teacher, random), teacher.evals["split"]
    first = steer(images, logits)  # nothing is known yet
    assert teacher.evals["split"] > before
    before = teacher.evals["split"]
    again = steer(images, logits)
    assert teacher.evals["split"] == before
    assert set(again.unique().tolist()) == {0.0, 1.0} and (first == again).float().mean() > 0.8


@pytest.mark.parametrize("wrong", [{"share": 0.0}, {"share": 1.5}, {"memory": 3}])
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Surrogate(Below([]), **wrong)
