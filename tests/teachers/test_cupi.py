import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dfkd.evaluate import accuracy
from dfkd.models import cnn_bn, mlp
from dfkd.recipe import Recipe
from dfkd.scenarios import close_set, none, open_set
from dfkd.teachers import CUPI
from dfkd.teachers.cupi import ClassMemory
from dfkd.teachers.style import instance_statistics, restyle, without_style


def test_a_bank_is_a_running_mean_a_class():
    bank = ClassMemory(4, momentum=0.75)
    assert bank.distance(torch.ones(2, 2), torch.tensor([0, 1])) == 0
    bank.update(torch.tensor([[1.0, 2.0], [3.0, 4.0], [9.0, 9.0]]), torch.tensor([0, 0, 2]))
    assert bank.rows.tolist() == [[2, 3], [0, 0], [9, 9], [0, 0]]  # first seen: the batch's mean
    bank.update(torch.tensor([[6.0, 7.0], [1.0, 1.0]], requires_grad=True), torch.tensor([0, 1]))
    assert bank.rows.tolist() == [[3, 4], [1, 1], [9, 9], [0, 0]]  # 0.75 * 2 + 0.25 * 6
    assert bank.known.tolist() == [True, True, True, False] and not bank.rows.requires_grad


def test_the_distance_to_a_bank_leaves_out_classes_not_seen():
    bank = ClassMemory(3)
    bank.update(torch.tensor([[1.0, 1.0], [0.0, 2.0]]), torch.tensor([0, 1]))
    values = torch.tensor([[3.0, 1.0], [0.0, 3.0], [100.0, 100.0]], requires_grad=True)
    distance = bank.distance(values, torch.tensor([0, 1, 2]))
    assert distance.item() == pytest.approx(((4 + 0) / 2 + (0 + 1) / 2) / 2)
    distance.backward()
    assert values.grad.tolist() == [[1, 0], [0, 0.5], [0, 0]]


def teacher(**options) -> CUPI:
    kind = CUPI(cnn_bn((1, 8, 8), 3), Recipe(), epochs=1, **options)
    kind.styles = torch.Generator().manual_seed(3)
    return kind


def by_hand(model, id_batch, ood_batch, styles):
    """Features and logits of the three groups and the statistics of every stage, layer by layer."""
    order = torch.randperm(6, generator=styles)
    h = model.normalize(torch.cat([id_batch.x, ood_batch.x, ood_batch.x[order]]))
    statistics = []
    for number, layer in enumerate(model.net.body):
        h = layer(h)
        if number in (3, 7):
            statistics.append(instance_statistics(h))
            h = torch.cat([h[:6], restyle(without_style(h[6:12]), h[:6], styles), h[12:]])
    return h.split(6), model.net.head(h).split(6), statistics, ood_batch.y[order]


def slow_distance(rows: dict, values, labels) -> float:
    known = [(v - rows[y]).square().mean() for v, y in zip(values, labels.tolist(), strict=True) if y in rows]
    return (sum(known) / len(known)).item() if known else 0.0


def means(values, labels) -> dict:
    """Mean vector by class."""
    return {y: values[labels == y].mean(0).detach() for y in set(labels.tolist())}


@pytest.mark.parametrize(("alpha", "kappa"), [(0.1, 0.1), (50.0, 0.5), (0.1, 1000.0)])
def test_the_close_set_loss_equals_the_formula(batches, alpha, kappa):
    model, id_batch, ood_batch = batches()
    model.eval()  # so that two forward passes are the same
    kind, styles = teacher(alpha=alpha, kappa=kappa), torch.Generator().manual_seed(3)
    first = kind.loss(model, id_batch, ood_batch, None)  # the banks are empty
    assert all(first[name] == 0 for name in ("apart", "together", "mean", "std"))
    (_, p_c, _), _, statistics, _ = by_hand(model, id_batch, ood_batch, styles)
    features = means(p_c, ood_batch.y)
    style = [[means(values[:6], id_batch.y) for values in stage] for stage in statistics]

    kind.epoch = 4
    found = kind.loss(model, id_batch, ood_batch, None)
    (p_s, _, p_t), logits, statistics, y_t = by_hand(model, id_batch, ood_batch, styles)
    weight = kappa * 4.05**0.9

    def clip(value):
        return min(torch.as_tensor(value).item(), 1.0)

    expected = {
        "id": F.cross_entropy(logits[0], id_batch.y).item() / 3,
        "isolated": -clip(alpha * F.cross_entropy(logits[1], ood_batch.y) / 3),
        "trap": -clip(alpha * F.cross_entropy(logits[2], y_t) / 3),
        "apart": -clip(weight * slow_distance(features, p_s, id_batch.y)),
        "together": clip(weight * slow_distance(features, p_t, y_t)),
    }
    for number, name in enumerate(("mean", "std")):
        total = sum(
            slow_distance(style[stage][number], statistics[stage][number][12:], y_t) for stage in range(len(style))
        )
        expected[name] = -clip(weight * total)
    assert expected["mean"] < 0 and expected["std"] < 0 and expected["together"] > 0
    assert {name: value.item() for name, value in found.items()} == pytest.approx(expected, rel=1e-3)


def test_the_open_set_form_fits_the_taught_label_on_both_ood_groups(batches):
    model, id_batch, ood_batch = batches()
    terms = teacher().loss(model, id_batch, ood_batch, 1)
    _, logits, _, _ = by_hand(model, id_batch, ood_batch, torch.Generator().manual_seed(3))
    taught = torch.full((6,), 1)
    assert terms["id"].item() == pytest.approx(F.cross_entropy(logits[0], id_batch.y).item(), rel=1e-4)
    expected = (F.cross_entropy(logits[1], taught) + F.cross_entropy(logits[2], taught)).item() / 2
    assert terms["ood"].item() == pytest.approx(expected, rel=1e-4) and set(terms) == {"id", "ood"}


def trained(scenario, runtime):
    torch.manual_seed(0)
    recipe = Recipe(optimizer="adam", lr=5e-3, batch_size=32, schedule="exponential", weight_decay=0.0)
    kind = CUPI(cnn_bn((1, 8, 8), 10, widths=(8, 16, 32)), recipe, epochs=10)
    kind.check(scenario)
    return kind.train(scenario, runtime, 0, lambda epoch, metrics: None)


def test_training_unlearns_what_an_ordinary_teacher_knows_of_ood(near, runtime):
    model = trained(near, runtime)
    assert accuracy(model, near.id.val, runtime) > 90
    assert accuracy(model, near.ood.val, runtime) < 15


def test_an_ood_domain_smaller_than_the_batch_is_no_trouble(tiny_domain, runtime):
    small = tiny_domain(count=6, seed=1)
    for scenario in (close_set(tiny_domain(), small), open_set(tiny_domain(), small, 1)):
        log = []
        kind = CUPI(cnn_bn((1, 8, 8), 3), Recipe(batch_size=16), epochs=1)
        kind.train(scenario, runtime, 0, lambda epoch, metrics, log=log: log.append(metrics))
        assert len(log) == 1 and kind.banks == {}


def test_what_it_cannot_do_is_said_before_any_work(tiny_domain, near):
    with pytest.raises(ValueError, match="teacher=cupi needs an OOD domain"):
        teacher().check(none(tiny_domain()))
    with pytest.raises(ValueError, match="names no stages"):
        CUPI(mlp((1, 8, 8), 10), Recipe(), epochs=1).check(near)
    with pytest.raises(ValueError, match="features"):
        CUPI(nn.Linear(2, 2), Recipe(), epochs=1)
    for wrong in ({"alpha": 0}, {"kappa": -1}, {"momentum": 1.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            teacher(**wrong)
