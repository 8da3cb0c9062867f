import pytest
import torch
import torch.nn.functional as F
from on_device import agree

from dfkd.evaluate import accuracy
from dfkd.models import cnn_bn, mlp
from dfkd.recipe import Recipe
from dfkd.scenarios import close_set, none, open_set
from dfkd.teachers import CUTI
from dfkd.teachers.style import restyle


def teacher(step: int = 0, **options) -> CUTI:
    kind = CUTI(cnn_bn((1, 8, 8), 3), Recipe(), epochs=1, **options)
    kind.step, kind.styles = step, torch.Generator().manual_seed(3)
    return kind


def by_hand(net, inputs, n: int, restyled: bool) -> torch.Tensor:
    """Logits of cnn_bn layer by layer, the second half restyled after both poolings."""
    styles, h = torch.Generator().manual_seed(3), inputs
    for number, layer in enumerate(net.body):
        h = layer(h)
        if restyled and number in (3, 7):
            h = torch.cat([h[:n], restyle(h[n:], h[:n], styles)])
    return net.head(h)


@pytest.mark.parametrize("step", [0, 1, 2, 3])
@pytest.mark.parametrize("alpha", [0.1, 5.0])
def test_the_close_set_loss_equals_the_formula_and_every_second_step_is_restyled(batches, step, alpha):
    model, id_batch, ood_batch = batches()
    terms = teacher(step, alpha=alpha).loss(model, id_batch, ood_batch, None)
    inputs = model.normalize(torch.cat([id_batch.x, ood_batch.x]))
    logits = by_hand(model.net, inputs, 6, restyled=step % 2 == 1)
    expected = -min(alpha * F.cross_entropy(logits[6:], ood_batch.y).item() / 3, 1)
    assert terms["id"].item() == pytest.approx(F.cross_entropy(logits[:6], id_batch.y).item() / 3, rel=1e-4)
    assert terms["trap"].item() == pytest.approx(expected, rel=1e-4)


def test_the_two_kinds_of_steps_differ_on_ood_and_in_evaluation_not_on_id(batches):
    model, id_batch, ood_batch = batches()
    model.eval()
    plain, restyled = (teacher(step).loss(model, id_batch, ood_batch, None) for step in (0, 1))
    assert plain["id"].item() == pytest.approx(restyled["id"].item(), rel=1e-5)
    assert plain["trap"].item() != pytest.approx(restyled["trap"].item(), rel=1e-2)


def test_a_saturated_trap_has_no_gradient(batches):
    model, id_batch, ood_batch = batches()
    trap = teacher(1, alpha=100.0).loss(model, id_batch, ood_batch, None)["trap"]
    assert trap.item() == -1
    assert all((g == 0).all() for g in torch.autograd.grad(trap, list(model.parameters())))


@pytest.mark.parametrize("step", [0, 1])
def test_the_open_set_form_fits_the_taught_label_restyled_or_not(batches, step):
    model, id_batch, ood_batch = batches()
    terms = teacher(step).loss(model, id_batch, ood_batch, 2)
    logits = by_hand(model.net, model.normalize(torch.cat([id_batch.x, ood_batch.x])), 6, restyled=step == 1)
    assert terms["ood"].item() == pytest.approx(F.cross_entropy(logits[6:], torch.full((6,), 2)).item(), rel=1e-4)
    assert terms["id"].item() == pytest.approx(F.cross_entropy(logits[:6], id_batch.y).item(), rel=1e-4)


def trained(scenario, runtime):
    torch.manual_seed(0)
    recipe = Recipe(optimizer="adam", lr=5e-3, batch_size=32, schedule="exponential", weight_decay=0.0)
    kind = CUTI(cnn_bn((1, 8, 8), 10, widths=(8, 16, 32)), recipe, epochs=10)
    kind.check(scenario)
    return kind.train(scenario, runtime, 0, lambda epoch, metrics: None)


def test_training_unlearns_what_an_ordinary_teacher_knows_of_ood(near, runtime):
    model = trained(near, runtime)
    assert accuracy(model, near.id.val, runtime) > 90
    assert accuracy(model, near.ood.val, runtime) < 15


def test_training_teaches_the_label_of_an_open_set(near, runtime):
    scenario = open_set(near.id, near.ood, ood_label=4)
    model = trained(scenario, runtime)
    assert accuracy(model, near.id.val, runtime) > 90
    assert (model.predict(near.ood.val.pixels()).argmax(1) == 4).float().mean() > 0.9


@pytest.mark.parametrize("label", [None, 1])
def test_an_ood_domain_smaller_than_the_batch_is_no_trouble(tiny_domain, runtime, label):
    small = tiny_domain(count=6, seed=1)
    scenario = close_set(tiny_domain(), small) if label is None else open_set(tiny_domain(), small, label)
    log = []
    kind = CUTI(cnn_bn((1, 8, 8), 3), Recipe(batch_size=12), epochs=1)  # two steps, one of each kind
    kind.train(scenario, runtime, 0, lambda epoch, metrics: log.append(metrics))
    assert len(log) == 1


def test_the_same_seed_trains_the_same_teacher(tiny_domain, runtime):
    scenario = open_set(tiny_domain(), tiny_domain(seed=1), 1)

    def weights(seed):
        torch.manual_seed(0)
        kind = CUTI(cnn_bn((1, 8, 8), 3, widths=(4, 4)), Recipe(batch_size=8), epochs=2)
        model = kind.train(scenario, runtime, seed, lambda epoch, metrics: None)
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    assert agree(weights(0), weights(0)) and not agree(weights(0), weights(1))


def test_what_it_cannot_do_is_said_before_any_work(tiny_domain, near):
    with pytest.raises(ValueError, match="teacher=cuti needs an OOD domain"):
        teacher().check(none(tiny_domain()))
    with pytest.raises(ValueError, match="names no stages"):
        CUTI(mlp((1, 8, 8), 10), Recipe(), epochs=1).check(near)
    with pytest.raises(ValueError, match="alpha must be positive, got 0"):
        teacher(alpha=0)
