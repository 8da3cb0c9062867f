"""Losses that compare features: their formula, what they need, and what a student learns by them."""

import pytest
import torch
from torch import nn

from dfkd.defenses import Defense
from dfkd.distill import KL, L1, MSE, CrossEntropy, Hint, Student, Trainer
from dfkd.models import Classifier, cnn_bn
from dfkd.models.common import FeatureNet
from dfkd.pool import Pool, Split
from dfkd.recipe import Recipe

SHAPE = (1, 8, 8)


def hint(student: int, teacher: int, base=None, weight: float = 1.0) -> Hint:
    """A started hint between features of these widths."""
    loss = Hint(base or KL(), weight)
    loss.start(student, teacher)
    return loss


def test_the_distance_of_the_features_is_that_of_a_slow_loop(random):
    s, t = torch.randn(5, 3, generator=random), torch.randn(5, 4, generator=random)
    loss = hint(3, 4, weight=2.5)
    loss.regressor.to(s.device)
    weight, bias = (parameter.tolist() for parameter in loss.regressor.parameters())
    for image, found in enumerate(loss.match(s, t).tolist()):
        squares = 0.0
        for d in range(4):
            regressed = bias[d] + sum(weight[d][k] * s[image, k].item() for k in range(3))
            squares += (regressed - t[image, d].item()) ** 2
        assert found == pytest.approx(2.5 * squares / 4, rel=1e-4)


def test_features_of_one_width_are_compared_as_they_are(random):
    s, t = torch.randn(2, 5, 4, generator=random, dtype=torch.float64)
    loss = hint(4, 4)
    assert list(loss.regressor.parameters()) == [] and loss.match(t, t).abs().max() == 0
    assert torch.allclose(loss.match(s, t), (s - t).square().sum(1) / 4)


@pytest.mark.parametrize("base", [KL(4.0), L1(), MSE(), CrossEntropy("hard")])
def test_where_only_logits_are_at_hand_it_is_its_base(random, base):
    s, t = torch.randn(2, 6, 4, generator=random)
    assert torch.equal(hint(3, 4, base)(s, t), base(s, t))


def test_every_start_makes_a_regressor_of_its_own():
    loss = Hint(KL())
    first, second = loss.start(3, 4), loss.start(3, 4)
    assert first is not second and loss.regressor is second


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Hint(KL(), -1.0), "weight must not be negative, got -1.0"),
        (lambda: Hint({"temperature": 1}), "base must be a loss of logits"),
        (lambda: Hint(Hint(KL())), "Hint compares features, too"),
    ],
)
def test_an_impossible_hint_is_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def trainer(teacher, runtime, loss, images, widths=(4, 6), seed=0, lr=0.05, **student) -> tuple[Trainer, Pool]:
    torch.manual_seed(seed)
    net = cnn_bn(SHAPE, 10, widths=widths)
    pool = Pool()
    pool.add(images, teacher.predict(images), Split.everything(images))
    recipe = Recipe(lr=lr, batch_size=32)
    model = Classifier(net, SHAPE, 10, teacher.mean.flatten().tolist(), teacher.std.flatten().tolist())
    made = Student(net, recipe, loss, epochs=1, **student)
    return Trainer(model, made, Defense(), runtime, seed, 400, teacher), pool


def test_the_regressor_learns_beside_the_student(teacher, runtime, small_digits, unchanged):
    check = unchanged(teacher)
    work, pool = trainer(teacher, runtime, Hint(MSE()), small_digits.train.pixels(slice(0, 64)))
    before = work.learned.weight.clone()
    assert before.shape == (teacher.net.head.in_features, work.model.net.head.in_features)
    work.train(pool, 2)
    check()
    assert not torch.equal(before, work.learned.weight)
    assert {id(p) for p in work.learned.parameters()} <= {id(p) for p in work.stepper.parameters}
    assert "regressor" not in " ".join(work.model.state_dict())  # it is no part of the student


def test_the_regressor_is_drawn_by_the_students_seed_alone(teacher, runtime, small_digits):
    images = small_digits.train.pixels(slice(0, 64))
    one, other, third = (trainer(teacher, runtime, Hint(KL()), images, seed=seed)[0] for seed in (0, 0, 1))
    assert torch.equal(one.learned.weight, other.learned.weight)
    assert not torch.equal(one.learned.weight, third.learned.weight)


@pytest.mark.parametrize("augment", ["none", "shift", "cut_mix"])
def test_the_teachers_features_are_those_of_the_images_that_the_student_sees(teacher, runtime, small_digits, augment):
    work, pool = trainer(teacher, runtime, Hint(KL()), small_digits.train.pixels(slice(0, 64)), augment=augment)
    before = teacher.evals["distill"]
    images, logits, _, features = work.load_batch(pool, work.next_index(pool))
    assert teacher.evals["distill"] - before == len(images) == 32
    assert torch.allclose(features, teacher.net.features(teacher.normalize(images)), atol=1e-4)
    assert torch.allclose(logits, teacher.predict(images), atol=1e-4) and not features.requires_grad


def test_a_student_matches_features_that_the_teachers_own_head_can_read(teacher, runtime, small_digits):
    """Logits alone leave the student's features its own; with the hint they become the teacher's."""
    data, right = small_digits.train, {}
    for name, loss in (("hint", Hint(KL(), weight=5.0)), ("logits", KL())):
        work, pool = trainer(teacher, runtime, loss, data.pixels(), widths=(8, 16, 32), seed=5)
        work.train(pool, 120)
        model, val = work.model.eval(), small_digits.val
        with torch.no_grad():
            features = model.net.features(model.normalize(val.pixels()))
            read = teacher.net.head(features).argmax(1).cpu() == val.y
        own = model.predict(val.pixels()).argmax(1).cpu() == val.y
        right[name] = read.float().mean().item(), own.float().mean().item()
    assert right["hint"][0] > 0.85 and right["hint"][1] > 0.9, right
    assert right["logits"][0] < 0.5 and right["logits"][1] > 0.9, right


class Headless(nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, :10]


@pytest.mark.parametrize("whose", ["teacher", "student"])
def test_a_network_without_features_is_named_before_training(whose):
    plain = FeatureNet(nn.Flatten(), nn.Linear(64, 10))
    networks = {"teacher": plain, "student": plain} | {whose: Headless()}
    student = Student(networks["student"], Recipe(), Hint(KL()), epochs=1)
    with pytest.raises(ValueError, match=f"of the {whose}'s none are found in Headless"):
        student.check(networks["teacher"])
    Student(networks["student"], Recipe(), KL(), epochs=1).check(networks["teacher"])  # logits every network has


def test_features_without_a_teacher_are_refused(runtime):
    net = FeatureNet(nn.Flatten(), nn.Linear(64, 10))
    model = Classifier(net, SHAPE, 10, [0.5], [0.5])
    with pytest.raises(ValueError, match="Hint needs the teacher"):
        Trainer(model, Student(net, Recipe(), Hint(KL()), epochs=1), Defense(), runtime, 0, 1)


def test_the_teacher_answers_as_ever_while_it_is_watched(teacher, runtime, small_digits):
    images = small_digits.train.pixels(slice(0, 64))
    (hinted, pool), (plain, _) = (trainer(teacher, runtime, loss, images) for loss in (Hint(KL()), KL()))
    for a, b in zip(hinted.load_batch(pool, torch.arange(8)), plain.load_batch(pool, torch.arange(8)), strict=False):
        assert torch.equal(a, b)
