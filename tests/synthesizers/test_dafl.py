import pytest
import torch
import torch.nn.functional as F
from runner import composed

from dfkd.priors import Activation, Balance, Prior
from dfkd.synthesizers import DAFL


def prior() -> Prior:
    return Prior({"balance": Balance(20.0), "activation": Activation(1e-3)})


def test_the_loss_is_the_papers(build, teacher, student):
    made = build(DAFL, prior(), one_hot=0.5)
    with torch.no_grad():
        inputs = teacher.normalize(made.generator.train()(made._latent(16, made.stream(0))))
        features = teacher.net.features(inputs)
        t = teacher.net.head(features)
    p = t.softmax(1).mean(0)
    expected = {
        "one_hot": 0.5 * F.nll_loss(t.log_softmax(1), t.max(1).indices),
        "balance": 20 * (p * p.log()).sum(),
        "activation": -1e-3 * features.abs().sum() / features.numel(),
    }
    metrics = build(DAFL, prior(), one_hot=0.5).synthesize(range(1), teacher, student).metrics
    assert metrics.keys() == expected.keys()
    for name, value in expected.items():
        assert metrics[name].item() == pytest.approx(value.item(), rel=1e-4), name


def test_its_loss_falls_until_its_images_cover_the_classes(build, losses, teacher, student):
    made = build(DAFL, prior(), batch_size=64, images=200)
    first = teacher.predict(made.synthesize(range(1), teacher, student).images)
    found = losses(made, 50, teacher, student)
    last = teacher.predict(made.synthesize(range(1), teacher, student).images)
    assert sum(found[-5:]) / 5 < found[0] - 5
    assert len(first.argmax(1).unique()) < len(last.argmax(1).unique()) == 10


@pytest.mark.parametrize(
    ("option", "one_hot", "balance10", "activation", "latent", "batch"),
    [("mnist", 1, 5, 0.1, 100, 512), ("cifar10", 0.05, 5, 0.01, 1000, 1024), ("cifar100", 0.5, 20, 0.1, 1000, 1024)],
)
def test_the_official_options_have_the_official_numbers(option, one_hot, balance10, activation, latent, batch, random):
    cfg = composed(f"synthesizer=dafl_{option}")
    synthesizer = cfg.synthesizer
    assert (synthesizer.one_hot, synthesizer.generator.latent) == (one_hot, latent)
    assert synthesizer.batch_size == synthesizer.images == batch
    assert cfg.prior.activation.weight == activation
    # the official balance takes the logarithm to the base 10
    p = torch.rand(7, generator=random)
    p /= p.sum()
    ours = cfg.prior.balance.weight * (p * p.log()).sum()
    assert ours.item() == pytest.approx(balance10 * (p * p.log10()).sum().item(), rel=1e-4)
