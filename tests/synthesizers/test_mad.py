import pytest
import torch
from torch import nn

from dfkd.priors import Balance, BatchNormPrior, Prior
from dfkd.synthesizers import DFQ, MAD
from dfkd.synthesizers.mad import follow


def prior() -> Prior:
    return Prior({"bn": BatchNormPrior(0.1), "balance": Balance(5.0)})


def test_following_averages_parameters_and_statistics_and_copies_counters():
    copy, module = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    module.weight.data.fill_(3.0)
    module.running_mean.fill_(-2.0)
    module.num_batches_tracked.fill_(7)
    follow(copy, module, decay=0.75)
    assert torch.allclose(copy.weight, torch.full((2,), 0.75 * 1 + 0.25 * 3))
    assert torch.allclose(copy.running_mean, torch.full((2,), -0.5))
    assert copy.num_batches_tracked == 7
    assert copy.weight.requires_grad and copy.weight.grad is None
    assert torch.equal(module.weight, torch.full((2,), 3.0))


def test_the_average_follows_every_generator_step(build, teacher, student):
    made = build(MAD, prior(), decay=0.6, steps=3)
    expected = {name: p.detach().clone() for name, p in made.generator.named_parameters()}
    step = made._step

    def watched(*arguments):
        terms = step(*arguments)
        for name, p in made.generator.named_parameters():
            expected[name] = 0.6 * expected[name] + 0.4 * p.detach()
        return terms

    made._step = watched
    made.synthesize(range(1), teacher, student)
    for name, p in made.average.named_parameters():
        assert torch.allclose(p, expected[name], atol=1e-6), name
        assert not p.requires_grad
    moved = [not torch.equal(a, b) for a, b in zip(made.average.parameters(), made.generator.parameters(), strict=True)]
    assert all(moved)


def test_the_students_images_come_from_both(build, teacher, student):
    made = build(MAD, prior(), images=7, share=0.5)
    images = made.synthesize(range(1), teacher, student).images
    stream = made.stream(0)
    made._latent(16, stream)
    fast, slow = made._latent(4, stream), made._latent(3, stream)
    with torch.no_grad():
        assert torch.equal(images[:4], made.generator.eval()(fast))
        assert torch.equal(images[4:], made.average.eval()(slow))
        assert not torch.equal(images[4:], made.generator(slow))


@pytest.mark.parametrize(("share", "from_average"), [(0.0, 0), (0.4, 2), (1.0, 6)])
def test_the_share_is_the_averages(build, teacher, student, share, from_average):
    made = build(MAD, prior(), images=6, share=share)
    counts = []
    made.average.register_forward_hook(lambda module, arguments, out: counts.append(len(out)))
    assert len(made.synthesize(range(1), teacher, student).images) == 6
    assert sum(counts) == from_average


def test_without_an_average_it_is_dfq(build, teacher, student):
    a, b = (build(kind, prior(), **more) for kind, more in ((MAD, {"share": 0.0}), (DFQ, {})))
    for t in range(3):
        first, second = (made.synthesize(range(t, t + 1), teacher, student).images for made in (a, b))
        assert torch.equal(first, second)


def test_its_average_remembers_what_the_generator_has_left_behind(build, losses, teacher, student):
    """Both get better at the one-hot loss; the average lags."""
    made = build(MAD, prior(), adversarial=0.0, batch_size=32, decay=0.9)
    found = losses(made, 40, teacher, student)
    assert sum(found[-5:]) < sum(found[:5]) - 1
    made.decay = 0.999  # from here on the average stays where it is
    before = [p.clone() for p in made.average.parameters()]
    losses(made, 5, teacher, student)
    drift = [
        sum((p - q).norm().item() for p, q in zip(module.parameters(), before, strict=True))
        for module in (made.average, made.generator)
    ]
    assert drift[0] < 0.1 * drift[1]


@pytest.mark.parametrize(("option", "value"), [("decay", 1.0), ("decay", -0.1), ("share", 1.1), ("share", -0.5)])
def test_impossible_numbers_are_refused(build, option, value):
    with pytest.raises(ValueError, match=f"{option}.*{value}"):
        build(MAD, **{option: value})
