import math

import pytest
import torch

from dfkd.models import DCGAN, Teacher, cnn, cnn_bn
from dfkd.priors import BatchNormEMA, BatchNormPrior, Prior
from dfkd.synthesizers import CAKE, DFQ


@pytest.fixture
def net_teacher() -> Teacher:
    torch.manual_seed(0)
    return Teacher(cnn_bn((1, 8, 8), 3, widths=(4, 6)), (1, 8, 8), 3, [0.0], [1.0])


def slow(teacher: Teacher, rounds: list[torch.Tensor], momentum: float) -> list[float]:
    """The term of every round, with the averages kept in plain Python lists."""
    memory, values = None, []
    for images in rounds:
        h, layers, total = images, [], 0.0
        for module in teacher.net.body:
            if isinstance(module, torch.nn.BatchNorm2d):
                flat = h.transpose(0, 1).flatten(1)
                mean = [sum(row) / len(row) for row in flat.tolist()]
                var = [sum((v - m) ** 2 for v in row) / len(row) for row, m in zip(flat.tolist(), mean, strict=True)]
                layers.append((module, mean, var))
            h = module(h)
        new = []
        for number, (module, mean, var) in enumerate(layers):
            if memory is not None:
                mean = [(1 - momentum) * a + momentum * b for a, b in zip(mean, memory[number][0], strict=True)]
                var = [(1 - momentum) * a + momentum * b for a, b in zip(var, memory[number][1], strict=True)]
            new.append((mean, var))
            for own, seen in ((module.running_mean.tolist(), mean), (module.running_var.tolist(), var)):
                total += math.sqrt(sum((a - b) ** 2 for a, b in zip(own, seen, strict=True)))
        memory = new
        values.append(total)
    return values


def test_every_round_equals_the_average_kept_by_hand(net_teacher, random):
    rounds = [torch.randn(3, 1, 8, 8, generator=random) * (1 + r) for r in range(4)]
    prior, values = Prior({"bn_ema": BatchNormEMA(weight=2.0, momentum=0.7)}), []
    for images in rounds:
        teacher_pass = prior.run_teacher(net_teacher, images)
        values.append(prior(teacher_pass)["bn_ema"].item() / 2)
        prior.remember(teacher_pass)
    with torch.no_grad():
        assert values == pytest.approx(slow(net_teacher, rounds, 0.7), rel=1e-4)


def test_the_first_round_and_the_one_after_a_start_are_the_plain_prior(net_teacher, random):
    first, second = torch.randn(2, 3, 1, 8, 8, generator=random)
    prior, plain = Prior({"bn": BatchNormEMA()}), Prior({"bn": BatchNormPrior()})
    for images in (first, second):
        prior.start()
        teacher_pass = prior.run_teacher(net_teacher, images)
        assert prior(teacher_pass)["bn"].item() == pytest.approx(plain(teacher_pass)["bn"].item(), rel=1e-6)
        prior.remember(teacher_pass)
    assert prior(teacher_pass)["bn"].item() == pytest.approx(
        plain(teacher_pass)["bn"].item(), rel=1e-5
    )  # blended with itself
    prior.remember(prior.run_teacher(net_teacher, 9 * first))
    assert prior(teacher_pass)["bn"].item() != pytest.approx(plain(teacher_pass)["bn"].item(), rel=1e-2)


def test_later_gradients_reach_the_images_but_not_the_rounds_before(net_teacher, random):
    old, new = (torch.randn(3, 1, 8, 8, generator=random, requires_grad=True) for _ in range(2))
    prior = Prior({"bn": BatchNormEMA(momentum=0.9)})
    prior.remember(prior.run_teacher(net_teacher, old))
    prior(prior.run_teacher(net_teacher, new))["bn"].sum().backward()
    assert new.grad.abs().sum() > 0 and old.grad is None


def test_the_memory_of_two_terms_is_not_shared(net_teacher, random):
    one, other = BatchNormEMA(), BatchNormEMA()
    prior = Prior({"one": one})
    prior.remember(prior.run_teacher(net_teacher, torch.randn(3, 1, 8, 8, generator=random)))
    assert one.memory is not None and other.memory is None


def test_a_generator_method_remembers_its_rounds_and_forgets_at_the_start(runtime, teacher):
    torch.manual_seed(0)
    prior = Prior({"bn": BatchNormEMA()})
    dfq = DFQ(DCGAN((1, 8, 8), latent=8, width=8), prior, rounds=3, steps=2, batch_size=8, images=4)
    dfq.start(runtime, 0)
    assert prior.terms["bn"].memory is None
    dfq.synthesize(range(1), teacher, teacher)
    kept = prior.terms["bn"].memory.clone()
    dfq.synthesize(range(1, 2), teacher, teacher)
    assert not torch.equal(prior.terms["bn"].memory, kept)
    dfq.start(runtime, 0)
    assert prior.terms["bn"].memory is None


def test_sets_that_know_nothing_of_each_other_are_refused(net_teacher, random):
    prior = Prior({"bn": BatchNormEMA()})
    with pytest.raises(ValueError, match="sets=2"):
        prior(prior.run_teacher(net_teacher, torch.randn(4, 1, 8, 8, generator=random), sets=2))
    from dfkd.noise import Noise

    cake = CAKE((1, 8, 8), 10, prior, Noise(), 2, 2, 10, 2, 1.0, 1.0)
    with pytest.raises(ValueError, match="'bn' carries statistics"):
        cake.check(net_teacher.net)


@pytest.mark.parametrize("momentum", [-0.1, 1.0])
def test_an_impossible_momentum_is_refused(momentum):
    with pytest.raises(ValueError, match=f"momentum.*{momentum}"):
        BatchNormEMA(momentum=momentum)


def test_a_teacher_without_batch_norm_is_refused():
    with pytest.raises(ValueError, match="no BatchNorm"):
        Prior({"bn_ema": BatchNormEMA()}).check(cnn((1, 28, 28), 10))
