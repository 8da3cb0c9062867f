import math

import pytest
import torch
from on_device import on_a_cpu

from dfkd.models import DCGAN, Classifier, cnn_bn
from dfkd.priors import Balance, BatchNormPrior, Prior
from dfkd.synthesizers import DFQ
from dfkd.synthesizers.dfq import adversarial_term


def slow_kl(t: torch.Tensor, s: torch.Tensor) -> float:
    p, q = t.softmax(0).tolist(), s.softmax(0).tolist()
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


@pytest.mark.parametrize("weights", [None, [1.0, 0.0, 0.5, 1.0]])
def test_the_adversarial_term_is_minus_the_weighted_mean_kl(random, weights):
    s, t = torch.randn(2, 4, 3, generator=random, dtype=torch.float64)
    expected = -sum((weights or [1.0] * 4)[i] * slow_kl(t[i], s[i]) for i in range(4)) / 4
    given = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    assert adversarial_term(s, t, given).item() == pytest.approx(expected, rel=1e-9)
    assert expected < 0


def make(runtime, prior=None, seed=0, **options) -> DFQ:
    torch.manual_seed(seed)
    prior = Prior({"bn": BatchNormPrior(1.0), "balance": Balance(20.0)}) if prior is None else prior
    defaults = {"rounds": 20, "steps": 1, "batch_size": 16, "images": 6, "lr": 3e-3}
    dfq = DFQ(DCGAN((1, 8, 8), latent=8, width=8), prior, **(defaults | options))
    dfq.start(runtime, seed)
    return dfq


@pytest.fixture
def student(teacher) -> Classifier:
    torch.manual_seed(5)
    return Classifier(cnn_bn((1, 8, 8), 10, widths=(4, 8)), (1, 8, 8), 10, [0.3], [0.4])


def total(dfq: DFQ, rounds: range, teacher, student) -> list[float]:
    return [sum(dfq.synthesize(range(t, t + 1), teacher, student).metrics.values()).item() for t in rounds]


@pytest.mark.parametrize("weights", [{"one_hot": 1.0, "adversarial": 0.0}, {"one_hot": 0.0, "adversarial": 1.0}])
def test_the_generators_loss_falls(runtime, teacher, student, weights):
    dfq = make(runtime, Prior({"bn": BatchNormPrior(0.1)}), rounds=40, **weights)
    losses = total(dfq, range(40), teacher, student)
    assert sum(losses[-5:]) / 5 < sum(losses[:5]) / 5 - 0.3


def test_with_the_adversarial_term_alone_the_student_disagrees_ever_more(runtime, teacher, student):
    dfq = make(runtime, Prior({}), one_hot=0.0, rounds=30)
    losses = total(dfq, range(30), teacher, student)
    assert all(loss < 0 for loss in losses)
    assert losses[-1] < on_a_cpu(runtime.device, 1.5, 1.3) * losses[0]


@pytest.mark.parametrize("training", [True, False])
def test_only_the_generator_is_touched(runtime, teacher, student, unchanged, training):
    student.train(training)
    checks = [unchanged(teacher), unchanged(student)]
    dfq = make(runtime)
    before = [p.detach().clone() for p in dfq.generator.parameters()]
    dfq.synthesize(range(1), teacher, student)
    for check in checks:
        check()
    assert student.training == training and not teacher.training
    assert all(not torch.equal(p, old) for p, old in zip(dfq.generator.parameters(), before, strict=True))


def test_the_student_is_looked_at_in_evaluation_mode(runtime, teacher, student):
    modes = []
    student.register_forward_hook(lambda module, arguments, out: modes.append(module.training))
    make(runtime, steps=2).synthesize(range(1), teacher, student.train())
    assert modes == [False, False]


def test_a_student_that_is_the_teacher_gives_no_adversarial_term(runtime, teacher):
    metrics = make(runtime).synthesize(range(1), teacher, teacher).metrics
    assert metrics["adversarial"].item() == pytest.approx(0.0, abs=1e-6)
    assert set(metrics) == {"one_hot", "adversarial", "bn", "balance"}


def test_fresh_images_come_from_the_generator_in_evaluation_mode(runtime, teacher, student):
    dfq = make(runtime, images=6)
    made = dfq.synthesize(range(1), teacher, student).images
    assert made.shape == (6, 1, 8, 8) and not made.requires_grad
    assert made.min() >= 0 and made.max() <= 1
    buffers = [b.clone() for b in dfq.generator.buffers()]
    stream = dfq.stream(0)
    dfq._latent(16, stream)
    with torch.no_grad():
        again = dfq.generator(dfq._latent(6, stream))
    assert torch.equal(made, again)
    assert all(torch.equal(a, b) for a, b in zip(buffers, dfq.generator.buffers(), strict=True))


def test_steering_sees_detached_images_and_scales_the_term(runtime, teacher, student):
    seen = []

    def none_of_them(images: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        assert torch.equal(logits, teacher.net(teacher.normalize(images))) and not logits.requires_grad
        seen.append(images)
        return torch.zeros(len(images))

    metrics = make(runtime, batch_size=16).synthesize(range(1), teacher, student, none_of_them).metrics
    assert metrics["adversarial"].item() == 0.0
    assert seen[0].shape == (16, 1, 8, 8) and not seen[0].requires_grad

    def half(images: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        return torch.full((len(images),), 0.5)

    whole = make(runtime).synthesize(range(1), teacher, student).metrics["adversarial"].item()
    assert make(runtime).synthesize(range(1), teacher, student, half).metrics["adversarial"].item() == pytest.approx(
        0.5 * whole, rel=1e-5
    )


def test_the_weights_multiply_the_terms(runtime, teacher, student):
    single = make(runtime).synthesize(range(1), teacher, student).metrics
    double = make(runtime, one_hot=2.0, adversarial=3.0).synthesize(range(1), teacher, student).metrics
    assert double["one_hot"].item() == pytest.approx(2 * single["one_hot"].item(), rel=1e-5)
    assert double["adversarial"].item() == pytest.approx(3 * single["adversarial"].item(), rel=1e-5)


def test_the_same_seed_gives_the_same_images(runtime, teacher, student):
    first, second, other = (make(runtime, seed=s).synthesize(range(1), teacher, student).images for s in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"batch_size": 1},
        {"images": 0},
        {"rounds": 0},
        {"lr": 0.0},
        {"one_hot": -1.0},
        {"adversarial": -1.0},
    ],
)
def test_impossible_numbers_are_refused(runtime, wrong):
    with pytest.raises(ValueError):
        make(runtime, **wrong)


def test_nothing_to_minimise_is_found_before_any_work(runtime, teacher):
    with pytest.raises(ValueError, match="nothing to minimise"):
        make(runtime, Prior({}), one_hot=0.0, adversarial=0.0).check(teacher.net)
