"""What the methods share that make one batch a round."""

import math

import pytest
import torch

from dfkd.models import cnn_bn
from dfkd.priors import L2, BatchNormEMA, Prior
from dfkd.synthesizers.inversion import (
    Best,
    Inversion,
    agreement,
    balanced_labels,
    evaluation_mode,
    to_bytes,
)
from dfkd.synthesizers.step import Optimization


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize(("count", "classes"), [(12, 4), (14, 4), (3, 10), (4, 4)])
def test_labels_use_every_class_equally_often(random, count, classes, shuffle):
    labels = balanced_labels(count, classes, random, shuffle)
    times = labels.bincount(minlength=classes)
    assert len(labels) == count and times.max() - times.min() <= (count % classes > 0)
    in_order = labels[: count // classes * classes].tolist() == list(range(classes)) * (count // classes)
    assert in_order or shuffle


def test_labels_are_a_matter_of_the_stream(random):
    first, second = balanced_labels(40, 10, random), balanced_labels(40, 10, random)
    assert not torch.equal(first, second)
    assert torch.equal(first, balanced_labels(40, 10, torch.Generator().manual_seed(0)))


def test_the_best_iterate_is_a_copy_of_the_one_with_the_lowest_loss():
    best, images = Best(), torch.zeros(2, 1, 1, 1)
    for number, loss in enumerate([3.0, 1.0, math.nan, 2.0]):
        images.fill_(number)
        best.offer(torch.tensor(loss), images)
    assert best.images.unique().tolist() == [1.0] and best.loss.item() == 1.0


def test_a_first_loss_that_is_not_a_number_is_replaced_by_any_number():
    best = Best()
    for loss in (math.nan, 7.0):
        best.offer(torch.tensor(loss), torch.full((1,), loss))
    assert best.images.item() == 7.0


def test_agreement_by_hand():
    s = torch.tensor([[2.0, 1.0], [0.0, 1.0], [5.0, 0.0]])
    t = torch.tensor([[9.0, 1.0], [1.0, 0.0], [0.1, 0.0]])
    assert agreement(s, t).tolist() == [1.0, 0.0, 1.0]


def test_bytes_are_rounded_and_never_wrap_around():
    images = torch.tensor([-0.1, 0.0, 0.499 / 255, 0.501 / 255, 1.0, 1.2])
    assert to_bytes(images).tolist() == [0, 0, 0, 1, 255, 255]


def test_the_student_gets_its_mode_back_also_after_an_error():
    net = cnn_bn((1, 8, 8), 3).train()
    with pytest.raises(RuntimeError), evaluation_mode(net):
        assert not net.training
        raise RuntimeError
    assert net.training


class Plain(Inversion):
    """Pixels and gradient descent: the smallest subclass."""

    def begin(self, round, labels, teacher, stream):
        x = torch.rand(len(labels), 1, 8, 8, generator=stream).requires_grad_()

        def advance():
            x.data -= 0.5 * x.grad

        return Optimization(lambda x: x, x, advance)


def make(runtime, prior=None, **options) -> Plain:
    defaults = {"rounds": 6, "steps": 3, "batch_size": 8, "one_hot": 1.0, "adversarial": 1.0, "warm_up": 2}
    plain = Plain(4, prior or Prior({}), **(defaults | options))
    plain.start(runtime, 0)
    return plain


def test_the_adversarial_term_counts_where_both_agree_after_the_warm_up(runtime, pair, one_round):
    teacher, student = pair()
    assert set(one_round(make(runtime), teacher, student, round=1).metrics) == {"one_hot", "hit"}
    plain = make(runtime, steps=1)
    made = one_round(plain, teacher, student, round=2)
    stream = plain.stream(2)
    plain.labels(stream)
    images = torch.rand(8, 1, 8, 8, generator=stream)
    t, s = teacher.predict(images).log_softmax(1), student.predict(images).log_softmax(1)
    same = t.argmax(1) == s.argmax(1)
    assert 0 < same.sum() < 8
    expected = -sum((t[i].exp() * (t[i] - s[i])).sum().item() for i in range(8) if same[i]) / 8
    assert made.metrics["adversarial"].item() == pytest.approx(expected, rel=1e-4)


def test_steering_sees_detached_images_and_scales_the_term(runtime, pair, one_round):
    teacher, student = pair()
    seen = []

    def half(images, logits):
        assert not images.requires_grad and torch.allclose(logits, teacher.predict(images), atol=1e-5)
        seen.append(len(images))
        return torch.full((len(images),), 0.5)

    whole = one_round(make(runtime, steps=1), teacher, student, round=2).metrics["adversarial"].item()
    steered = one_round(make(runtime, steps=1), teacher, student, half, round=2).metrics["adversarial"].item()
    assert whole != 0 and steered == pytest.approx(0.5 * whole, rel=1e-5)
    one_round(make(runtime), teacher, student, half, round=1)  # before the adversarial term there is nothing to steer
    assert seen == [8]


def test_a_defenses_term_is_part_of_the_loss(runtime, pair, one_round):
    teacher, student = pair()
    plain, without = make(runtime), one_round(make(runtime), teacher, student)
    plain.term = lambda images, logits: 200 * images.square().mean() + 0 * logits.sum()
    made = one_round(plain, teacher, student)
    assert plain.takes_term and made.metrics["defense"] > 0
    assert made.images.float().mean() < 0.5 * without.images.float().mean()  # darker


def test_the_prior_remembers_every_round_and_forgets_at_the_start(runtime, pair):
    prior = Prior({"bn": BatchNormEMA()})
    plain = make(runtime, prior)
    assert prior.terms["bn"].memory is None
    plain.synthesize(range(1), *pair())
    assert prior.terms["bn"].memory is not None
    plain.start(runtime, 0)
    assert prior.terms["bn"].memory is None


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"steps": 0}, "steps"),
        ({"batch_size": 1}, "batch_size"),
        ({"rounds": 0}, "rounds"),
        ({"one_hot": -1.0}, "one_hot=-1.0"),
        ({"adversarial": -2.0}, "adversarial=-2.0"),
        ({"warm_up": 6}, "warm_up=6 with rounds=6"),
        ({"warm_up": -1}, "warm_up=-1"),
    ],
)
def test_impossible_numbers_are_refused(runtime, wrong, said):
    with pytest.raises(ValueError, match=said):
        make(runtime, **wrong)


def test_nothing_to_minimise_is_found_before_any_work(runtime, pair):
    with pytest.raises(ValueError, match="nothing to minimise"):
        make(runtime, one_hot=0.0, adversarial=0.0).check(pair()[0].net)
    make(runtime, Prior({"l2": L2()}), one_hot=0.0, adversarial=0.0).check(pair()[0].net)
