import copy
import math

import pytest
import torch
from torch import nn

from dfkd.domains import Images
from dfkd.evaluate import accuracy
from dfkd.models import Classifier, cnn_bn
from dfkd.recipe import Recipe
from dfkd.scenarios import close_set, none, open_set
from dfkd.teachers import SOPHON
from dfkd.teachers.sophon import inverse_cross_entropy, suppress, towards_uniform


@pytest.mark.parametrize("classes", [2, 10, 12])
def test_towards_uniform_is_the_kl_from_uniform_for_any_number_of_classes(random, classes):
    logits = torch.randn(5, classes, generator=random)
    p = logits.softmax(1).tolist()
    expected = sum(sum(1 / classes * math.log(1 / classes / q) for q in row) for row in p) / 5
    assert towards_uniform(logits, torch.zeros(5).long()).item() == pytest.approx(expected, rel=1e-4)
    assert towards_uniform(torch.full((2, classes), 3.0), torch.zeros(2).long()).item() == pytest.approx(0, abs=1e-6)


def test_inverse_cross_entropy_is_small_where_the_true_class_is_last():
    logits = torch.tensor([[-5.0, 5.0]])
    assert inverse_cross_entropy(logits, torch.tensor([0])).item() == pytest.approx(
        math.log(1 + math.exp(-10)), rel=1e-2
    )
    assert inverse_cross_entropy(logits, torch.tensor([1])).item() == pytest.approx(10, rel=1e-3)


def softmax(logits):
    top = [math.exp(v) for v in logits]
    return [v / sum(top) for v in top]


def test_one_suppression_step_equals_the_hand_calculation():
    # One input x, two classes, logits (a x, b x); labels 0. One thief's step from (a, b) = (1, 0.5), then another.
    net = nn.Linear(1, 2, bias=False)
    net.weight.data = torch.tensor([[1.0], [0.5]])
    label = torch.tensor([0])
    xs = [(2.0, 3.0), (-1.0, 0.5)]
    pairs = [(Images(torch.tensor([[a]]), label), Images(torch.tensor([[e]]), label)) for a, e in xs]
    gradients, value = suppress(net, pairs, inverse_cross_entropy, fast_lr=0.1)

    w, total, objective = [1.0, 0.5], [0.0, 0.0], 0.0
    for x, z in xs:
        p = softmax([w[0] * x, w[1] * x])
        w = [w[0] - 0.1 * (p[0] - 1) * x, w[1] - 0.1 * p[1] * x]  # d CE / d w_c = (p_c - [c = y]) x
        q = softmax([1 - w[0] * z, 1 - w[1] * z])
        objective -= math.log(q[0]) / 2
        total = [total[0] - (q[0] - 1) * z / 2, total[1] - q[1] * z / 2]  # of CE(1 - w z): minus (q_c - [c = y]) z
    assert gradients["weight"].flatten().tolist() == pytest.approx(total, rel=1e-5)
    assert value.item() == pytest.approx(objective, rel=1e-5)
    assert net.weight.flatten().tolist() == [1.0, 0.5] and net.weight.grad is None


def test_a_thief_who_does_not_move_leaves_the_plain_gradient(batches):
    model, adapt, evaluate = batches()
    model.eval()
    gradients, _ = suppress(model, [(adapt, evaluate)], towards_uniform, fast_lr=1e-12)
    towards_uniform(model(evaluate.x), evaluate.y).backward()
    for name, p in model.named_parameters():
        assert torch.allclose(gradients[name], p.grad, atol=1e-5)


def teacher(net=None, **options) -> SOPHON:
    return SOPHON(net or cnn_bn((1, 8, 8), 3), Recipe(batch_size=8), **({"epochs": 1, "rounds": 1} | options))


def test_a_suppression_step_puts_batch_norm_back_and_moves_the_weights(batches):
    model, _, ood = batches(n=6)
    buffers = copy.deepcopy(dict(model.named_buffers()))
    weights = [p.detach().clone() for p in model.parameters()]
    kind = teacher(batches=2, adapt=4, evaluate=2, clip=1e-3)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    kind.suppression_step(model, iter([ood, ood]), optimizer)
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, buffers[name]), name
    moved = torch.stack([(p - w).square().sum() for p, w in zip(model.parameters(), weights, strict=True)]).sum().sqrt()
    assert moved.item() == pytest.approx(1e-3, rel=1e-2)  # the clipped gradient


@pytest.mark.parametrize(("objective", "rounds"), [("uniform", 60), ("inverse", 40)])
def test_training_drives_down_what_its_own_supervised_phase_knows_of_ood(near, runtime, objective, rounds):
    torch.manual_seed(0)
    net, log, before = cnn_bn((1, 8, 8), 10, widths=(8, 16, 32)), [], []

    def report(epoch, metrics):
        log.append((epoch, metrics))
        if epoch == 5:  # the end of the supervised phase
            before.append(copy.deepcopy(net))

    options = {"batches": 4, "suppress_lr": 1e-2, "id_lr": 3e-3, "id_steps": 4}
    kind = SOPHON(net, Recipe(lr=0.1, batch_size=64), 6, rounds=rounds, objective=objective, **options)
    kind.check(near)
    model = kind.train(near, runtime, 0, report)
    first = Classifier(before[0], model.shape, 10, model.mean.flatten().tolist(), model.std.flatten().tolist())
    assert accuracy(model, near.id.val, runtime) > 90
    assert accuracy(model, near.ood.val, runtime) < accuracy(first, near.ood.val, runtime) - 10
    assert [epoch for epoch, _ in log] == list(range(6 + rounds)) and kind.log_calls == 6 + rounds
    assert set(log[-1][1]) == {"loss/suppress", "loss/id", "val/iacc"}


def test_what_it_cannot_do_is_said_before_any_work(tiny_domain):
    with pytest.raises(ValueError, match="teacher=sophon needs an OOD domain"):
        teacher().check(none(tiny_domain()))
    with pytest.raises(ValueError, match=r"no form with a taught label.*close_set"):
        teacher().check(open_set(tiny_domain(), tiny_domain(seed=1), 1))
    with pytest.raises(ValueError, match="adapt \\+ evaluate = 32 OOD images a step, but there are only 24"):
        teacher().check(close_set(tiny_domain(), tiny_domain(seed=1)))
    wrong = {"objective": "up", "rounds": 0, "batches": 0, "adapt": 1, "evaluate": 1, "id_steps": 0}
    wrong |= {"fast_lr": 0.0, "suppress_lr": 0.0, "id_lr": -1.0, "clip": 0.0}
    for name, value in wrong.items():
        with pytest.raises(ValueError, match=f"^{name} must be .*{value}"):
            teacher(**{name: value})
