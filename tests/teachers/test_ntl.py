import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dfkd.domains import Images
from dfkd.models import Classifier, cnn_bn, mlp
from dfkd.recipe import Recipe
from dfkd.scenarios import close_set, none, open_set
from dfkd.teachers import NTL
from dfkd.teachers.ntl import mmd


def slow_mmd(x, y, bandwidths=(1, 2, 4, 8, 16)) -> float:
    joint = [row.tolist() for row in torch.cat([x, y]).double()]

    def squared(a, b):
        return sum((i - j) ** 2 for i, j in zip(a, b, strict=True))

    count, n = len(joint), len(x)
    unit = sum(squared(a, b) for a in joint for b in joint) / (count**2 - count) / 4

    def k(a, b):
        return sum(math.exp(-squared(a, b) / (unit * w)) for w in bandwidths)

    total = 0.0
    for i in range(n):
        for j in range(n):
            total += k(joint[i], joint[j]) + k(joint[n + i], joint[n + j]) - 2 * k(joint[i], joint[n + j])
    return total / n**2


@pytest.mark.parametrize("n", [5, 30])
@pytest.mark.parametrize("bandwidths", [(1, 2, 4, 8, 16), (0.5,)])
def test_mmd_equals_the_slow_double_loop(random, n, bandwidths):
    x, y = torch.randn(n, 4, generator=random), torch.randn(n, 4, generator=random) * 2 + 1
    assert mmd(x, y, bandwidths).item() == pytest.approx(slow_mmd(x, y, bandwidths), rel=1e-4)


def test_mmd_of_features_far_from_the_origin(random):
    x, y = torch.randn(30, 4, generator=random) + 1000, torch.randn(30, 4, generator=random) + 1001
    assert mmd(x, y).item() == pytest.approx(slow_mmd(x, y), rel=1e-2)


@pytest.mark.parametrize("n", [4, 40])
def test_mmd_of_identical_batches_is_zero_and_of_others_positive(random, n):
    x = torch.randn(n, 6, generator=random)
    assert mmd(x, x.clone()).item() == pytest.approx(0.0, abs=1e-5)
    assert mmd(x, x + 3).item() > 1.0


def test_mmd_of_collapsed_features_is_finite():
    x = torch.ones(4, 3, requires_grad=True)
    value = mmd(x, torch.ones(4, 3))
    value.backward()
    assert value.item() == pytest.approx(0.0) and x.grad.isfinite().all()


def test_the_bandwidth_is_detached():
    # One point a batch: squared = d, unit = 2 d / 2 / 4 = d / 4, so the value does not depend on d; its gradient does,
    # unless the bandwidth takes part in it.
    x = torch.tensor([[3.0]], requires_grad=True)
    value = mmd(x, torch.zeros(1, 1), bandwidths=(1.0,))
    value.backward()
    assert value.item() == pytest.approx(2 - 2 * math.exp(-4), rel=1e-5)
    assert x.grad.item() == pytest.approx(2 * math.exp(-4) * 2 * 3 / (9 / 4), rel=1e-4)


def model_and_batches(random, n=6, classes=3):
    torch.manual_seed(0)
    model = Classifier(cnn_bn((1, 8, 8), classes, widths=(4, 6)), (1, 8, 8), classes, [0.4], [0.3])
    batches = [
        Images(torch.rand(n, 1, 8, 8, generator=random), torch.randint(classes, (n,), generator=random))
        for _ in range(2)
    ]
    return model.train(), *batches


def teacher(**options) -> NTL:
    return NTL(cnn_bn((1, 8, 8), 3), Recipe(), epochs=1, **options)


@pytest.mark.parametrize(("alpha", "beta"), [(0.1, 0.1), (1.0, 0.5), (100.0, 0.1), (0.1, 100.0), (100.0, 100.0)])
def test_the_close_set_loss_equals_the_formula(random, alpha, beta):
    model, id_batch, ood_batch = model_and_batches(random)
    terms = teacher(alpha=alpha, beta=beta).loss(model, id_batch, ood_batch, None)
    logits = model.net(model.normalize(torch.cat([id_batch.x, ood_batch.x])))  # one concatenated forward
    features = model.net.features(model.normalize(torch.cat([id_batch.x, ood_batch.x]))).detach()
    id_loss = F.cross_entropy(logits[:6], id_batch.y).item() / 3
    ood_loss = F.cross_entropy(logits[6:], ood_batch.y).item() / 3
    distance = slow_mmd(features[:6], features[6:])
    assert terms["id"].item() == pytest.approx(id_loss, rel=1e-4)
    expected = -min(alpha * ood_loss, 1) * min(beta * distance, 1)
    assert terms["trap"].item() == pytest.approx(expected, rel=1e-3)


def test_the_loss_is_torchs_kl_divergence_with_one_hot_labels(random):
    model, id_batch, ood_batch = model_and_batches(random)
    id_loss = teacher().loss(model.eval(), id_batch, ood_batch, None)["id"].item()
    one_hot = F.one_hot(id_batch.y, 3).float()
    expected = nn.KLDivLoss(reduction="none")(model(id_batch.x).log_softmax(1), one_hot).mean()
    assert id_loss == pytest.approx(expected.item(), rel=1e-4)


def test_a_saturated_trap_has_no_gradient_and_a_free_one_raises_the_ood_error(random):
    model, id_batch, ood_batch = model_and_batches(random)
    trap = teacher(alpha=100.0, beta=100.0).loss(model, id_batch, ood_batch, None)["trap"]
    assert trap.item() == -1.0
    gradients = torch.autograd.grad(trap, list(model.parameters()))
    assert all((g == 0).all() for g in gradients)
    trap = teacher().loss(model, id_batch, ood_batch, None)["trap"]
    (bias,) = torch.autograd.grad(trap, [model.net.head.bias])
    probabilities = model.net.head(model.net.features(model.normalize(torch.cat([id_batch.x, ood_batch.x]))))[
        6:
    ].softmax(1)
    towards_truth = (F.one_hot(ood_batch.y, 3) - probabilities).mean(0)
    assert (bias * towards_truth).sum() > 0  # descent moves away from the OOD labels


def test_the_open_set_form_is_plain_cross_entropy_on_both(random):
    model, id_batch, ood_batch = model_and_batches(random)
    terms = teacher().loss(model, id_batch, ood_batch, 2)
    logits = model(torch.cat([id_batch.x, ood_batch.x]))
    assert terms["id"].item() == pytest.approx(F.cross_entropy(logits[:6], id_batch.y).item(), rel=1e-5)
    expected = F.cross_entropy(logits[6:], torch.full((6,), 2)).item()
    assert terms["ood"].item() == pytest.approx(expected, rel=1e-5)


def train(kind: NTL, scenario, runtime):
    torch.manual_seed(0)
    return kind.train(scenario, runtime, 0, lambda epoch, metrics: None)


def test_training_sets_a_trap_in_a_close_set(tiny_domain, runtime):
    scenario = close_set(tiny_domain(seed=0), tiny_domain(seed=1))
    scenario.ood.train.x[:, :, 4:] += 0.8
    scenario.ood.val.x[:, :, 4:] += 0.8
    recipe = Recipe(optimizer="adam", lr=1e-2, batch_size=8, schedule="constant", weight_decay=0.0)
    torch.manual_seed(0)
    model = train(NTL(cnn_bn((1, 8, 8), 3, widths=(8,)), recipe, epochs=30, alpha=1.0, beta=1.0), scenario, runtime)

    def accuracy(images: Images) -> float:
        return (model.predict(images.x).argmax(1).cpu() == images.y).float().mean().item()

    assert accuracy(scenario.id.train) > 0.9
    assert accuracy(scenario.ood.train) < 0.4


@pytest.mark.parametrize("label", [None, 1])
def test_an_ood_domain_smaller_than_the_batch_is_no_trouble(tiny_domain, runtime, label):
    small = tiny_domain(count=6, seed=1, name="small")
    scenario = close_set(tiny_domain(), small) if label is None else open_set(tiny_domain(), small, label)
    train(NTL(mlp((1, 8, 8), 3), Recipe(batch_size=16), epochs=1), scenario, runtime)


def test_it_needs_an_ood_domain_and_a_network_with_features(tiny_domain):
    with pytest.raises(ValueError, match="needs an OOD domain"):
        teacher().check(none(tiny_domain()))
    with pytest.raises(ValueError, match="features"):
        NTL(nn.Linear(2, 2), Recipe(), epochs=1)


@pytest.mark.parametrize("wrong", [{"alpha": -1.0}, {"beta": -0.1}, {"bandwidths": ()}, {"bandwidths": (1, 0)}])
def test_impossible_numbers_are_refused(wrong):
    with pytest.raises(ValueError):
        teacher(**wrong)
