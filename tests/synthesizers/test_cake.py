import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dfkd.models import Teacher
from dfkd.models.common import FeatureNet
from dfkd.noise import Noise
from dfkd.priors import Balance, BatchNormPrior, Prior, TotalVariation
from dfkd.synthesizers import CAKE
from dfkd.synthesizers.cake_terms import class_term, contrast_mse, contrast_snn

NOTHING = Prior({})


def some(sets=3, rows=4, groups=3, classes=5, seed=0):
    """Logits (S, B, G, C) and labels (S, B, G), distinct in every row."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(sets, rows, groups, classes, generator=generator, dtype=torch.float64)
    labels = torch.rand(sets, rows, classes, generator=generator).argsort(2)[..., :groups]
    return logits, labels


# --- terms


@pytest.mark.parametrize("groups", [1, 2, 5])
def test_mse_contrast_equals_the_literal_double_sum(groups):
    logits, _ = some(groups=groups)
    sets, rows, _, classes = logits.shape
    for s in range(sets):
        total = 0.0
        for b in range(rows):
            for i in range(groups):
                for j in range(i + 1, groups):
                    total += (logits[s, b, i] - logits[s, b, j]).square().sum().item()
        assert contrast_mse(logits)[s].item() == pytest.approx(total / (rows * classes), rel=1e-9, abs=1e-12)


def test_mse_contrast_equals_the_reference_broadcast():
    logits, _ = some()
    groups = logits.shape[2]
    for s, f in enumerate(logits):
        broadcast = (f[:, :, None] - f[:, None, :]).square()
        assert contrast_mse(logits)[s].item() == pytest.approx(0.5 * groups**2 * broadcast.mean().item(), rel=1e-9)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_snn_contrast_equals_the_slow_loop(temperature):
    logits, labels = some(rows=5, groups=2, classes=4)
    labels[0, 0, 0], labels[0, 0, 1] = 0, 1
    for s in range(len(logits)):
        f, y = logits[s].reshape(-1, 4), labels[s].flatten().tolist()
        losses = []
        for i in range(len(f)):
            e = [math.exp(-(f[i] - f[j]).square().sum().item() / temperature) for j in range(len(f))]
            same = sum(e[j] for j in range(len(f)) if j != i and y[j] == y[i])
            others = sum(e[j] for j in range(len(f)) if j != i)
            losses.append(-math.log(same / others) if same else 0.0)
        expected = 0.5 * 2**2 / (sum(losses) / len(losses))
        assert contrast_snn(logits, labels, temperature)[s].item() == pytest.approx(expected, rel=1e-6)


def test_an_image_without_a_partner_counts_as_zero_and_has_finite_gradients():
    logits = torch.tensor([[0.0, 1.0], [0.5, 0.0], [2.0, 1.0]]).view(1, 3, 1, 2).requires_grad_()
    labels = torch.tensor([0, 0, 1]).view(1, 3, 1)
    value = contrast_snn(logits, labels)
    e = [[math.exp(-(a - b).square().sum().item()) for b in logits.view(3, 2)] for a in logits.view(3, 2)]
    mean = (-math.log(e[0][1] / (e[0][1] + e[0][2])) - math.log(e[1][0] / (e[1][0] + e[1][2])) + 0.0) / 3
    assert value.item() == pytest.approx(0.5 / mean, rel=1e-5)
    value.sum().backward()
    assert logits.grad.isfinite().all()


def test_snn_contrast_survives_logits_that_are_far_apart():
    logits = (1e3 * torch.eye(4)).view(1, 2, 2, 4).requires_grad_()
    value = contrast_snn(logits, torch.tensor([[[0, 1], [1, 0]]]))
    value.sum().backward()
    assert value.isfinite().all() and logits.grad.isfinite().all()


def test_class_term_is_groups_times_the_mean_cross_entropy_of_the_set():
    logits, labels = some()
    for s in range(len(logits)):
        expected = 3 * F.cross_entropy(logits[s].reshape(-1, 5), labels[s].flatten())
        assert class_term(logits, labels)[s].item() == pytest.approx(expected.item(), rel=1e-9)


# --- synthesis


def make(runtime, shape=(1, 2, 1), classes=2, seed=0, **options) -> CAKE:
    defaults = {
        "prior": NOTHING,
        "noise": Noise("constant", eps=0.1),
        "rounds": 2,
        "steps": 3,
        "batch_size": 8,
        "groups": 2,
        "class_weight": 1.0,
        "contrast_weight": 1.0,
    }
    cake = CAKE(shape, classes, **(defaults | options))
    cake.start(runtime, seed)
    return cake


@pytest.fixture
def line(linear) -> Teacher:
    """Class 0 where x0 > 0."""
    return linear([[2.0, 0.0], [-2.0, 0.0]])


@pytest.fixture
def diamond() -> Teacher:
    """Class 0 where |x0| + |x1| > 1: a hand-made MLP."""
    hidden, head = nn.Linear(2, 4), nn.Linear(4, 2)
    hidden.weight.data = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    hidden.bias.data.zero_()
    head.weight.data = torch.tensor([[1.0] * 4, [-1.0] * 4])
    head.bias.data = torch.tensor([-1.0, 1.0])
    net = FeatureNet(nn.Sequential(nn.Flatten(), hidden, nn.ReLU()), head)
    return Teacher(net, (1, 2, 1), 2, [0.0], [1.0])


def boundary_distance(teacher: Teacher, images: torch.Tensor) -> float:
    logits = teacher.predict(images)
    return (logits[:, 0] - logits[:, 1]).abs().mean().item()


@pytest.mark.parametrize(("optimizer", "eps", "scale"), [("sgd", 0.1, 16.0), ("adam", 0.01, 1.0)])
@pytest.mark.parametrize("which", ["line", "diamond"])
def test_samples_end_nearer_the_boundary_than_they_began_and_on_their_side(
    request, runtime, which, optimizer, eps, scale
):
    teacher = request.getfixturevalue(which)
    weights = {"class_weight": 0.3 * scale, "contrast_weight": 0.1 * scale}
    options = {"batch_size": 64, "steps": 200, "optimizer": optimizer, "noise": Noise("constant", eps=eps)} | weights
    cake = make(runtime, **options)
    start = torch.cat([cake._start(cake.stream(t)).detach() for t in range(2)])
    made = cake.synthesize(range(2), teacher)
    assert boundary_distance(teacher, made.images) < 0.7 * boundary_distance(teacher, start)
    sides = (teacher.predict(made.images).argmax(1) == made.columns["target"]).float().mean().item()
    assert sides > 0.9


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_one_step_by_hand(runtime, line, optimizer):
    cake = make(runtime, rounds=1, steps=1, batch_size=4, optimizer=optimizer, contrast_weight=0.5)
    stream = cake.stream(0)
    x, labels = cake._start(stream).detach(), cake._labels(stream)
    z = x.clone().requires_grad_()
    logits = line.net(z)
    pairs = logits.view(2, 2, 2)
    cross_entropy = 2 * F.cross_entropy(logits, labels.flatten())
    contrast = 0.5 * (pairs[:, 0] - pairs[:, 1]).square().sum() / (2 * 2)
    (cross_entropy + contrast).backward()
    step = 0.1 * z.grad if optimizer == "sgd" else 0.1 * z.grad.sign()
    images = cake.synthesize(range(1), line).images
    assert torch.allclose(images, x - step, atol=1e-5)


def conv_teacher(mean=(0.4,), std=(0.3,)) -> Teacher:
    torch.manual_seed(1)
    body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten())
    teacher = Teacher(FeatureNet(body, nn.Linear(64, 5)), (1, 6, 6), 5, list(mean), list(std))
    teacher.net.body[1].running_var.mul_(0.3)
    return teacher


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("contrast", ["mse", "snn"])
@pytest.mark.parametrize(("langevin", "snapshots"), [(False, 1), (True, 3)])
def test_the_images_are_the_same_however_many_sets_are_made_at_once(runtime, optimizer, contrast, langevin, snapshots):
    prior = Prior({"tv": TotalVariation(3.0), "balance": Balance(2.0), "bn": BatchNormPrior(0.5)})
    options = {
        "shape": (1, 6, 6),
        "classes": 5,
        "prior": prior,
        "noise": Noise("linear", eps=0.05, decades=2, langevin=langevin),
        "rounds": 5,
        "groups": 4,
        "contrast": contrast,
        "optimizer": optimizer,
        "snapshots": snapshots,
    }
    results = {}
    for chunk in (1, 16, 1000):
        cake = make(runtime, chunk=chunk, **options)
        assert cake.rounds_per_call == {1: 1, 16: 2, 1000: 125}[chunk]
        parts = [
            cake.synthesize(range(t, min(t + cake.rounds_per_call, 5)), conv_teacher())
            for t in range(0, 5, cake.rounds_per_call)
        ]
        results[chunk] = torch.cat([part.images for part in parts])
        columns = torch.cat([part.columns["eps"] for part in parts])
        assert len(columns) == 40 * snapshots
    assert torch.allclose(results[1], results[16], atol=1e-5)
    assert torch.allclose(results[1], results[1000], atol=1e-5)


def test_snapshots_are_the_images_of_shorter_runs(runtime, line):
    cake = make(runtime, steps=7, snapshots=3)
    with line.counted_as("synthesis"):
        made = cake.synthesize(range(2), line)
    assert line.evals["synthesis"] == 7 * 2 * 8 + 2 * 8  # one for the last images, none for what lies on the way
    assert torch.allclose(made.logits, line.predict(made.images), atol=1e-5)
    for number in range(2):
        shorter = [make(runtime, steps=steps).synthesize(range(number, number + 1), line) for steps in (2, 4, 7)]
        part = slice(24 * number, 24 * (number + 1))
        assert torch.allclose(made.images[part], torch.cat([one.images for one in shorter]), atol=1e-6)
        for name in cake.columns:
            assert torch.equal(made.columns[name][part], torch.cat([one.columns[name] for one in shorter]))


def test_every_row_has_distinct_classes_and_every_class_is_drawn(runtime):
    cake = make(runtime, classes=7, batch_size=300, groups=3)
    labels = cake._labels(cake.stream(0))
    assert labels.shape == (100, 3)
    assert all(len(set(row)) == 3 for row in labels.tolist())
    assert labels.unique().tolist() == list(range(7))


def test_labels_of_the_columns_belong_to_the_images(runtime, line):
    made = make(runtime, steps=100, contrast_weight=0.0, class_weight=4.0).synthesize(range(2), line)
    assert torch.equal(line.predict(made.images).argmax(1), made.columns["target"])
    assert made.metrics["hit"].item() == 1.0


def test_the_eps_column_follows_the_schedule_over_the_sets(runtime, line):
    cake = make(runtime, rounds=4, noise=Noise("linear", eps=0.1, decades=4), batch_size=2)
    made = cake.synthesize(range(1, 3), line)
    assert made.columns["eps"].tolist() == pytest.approx([1e-2, 1e-2, 1e-3, 1e-3])


def test_without_noise_the_step_size_is_used(runtime, line):
    made = make(runtime, noise=Noise("none"), step_size=0.03).synthesize(range(1), line)
    assert made.columns["eps"].unique().item() == pytest.approx(0.03)


def test_langevin_noise_has_variance_two_eps(runtime, linear):
    flat = linear([[0.0] * 64, [0.0] * 64], shape=(1, 8, 8))  # no gradient: the noise is all there is
    options = {"shape": (1, 8, 8), "batch_size": 200, "steps": 5}
    quiet = make(runtime, noise=Noise("constant", eps=0.02), **options).synthesize(range(1), flat).images
    noisy = make(runtime, noise=Noise("constant", eps=0.02, langevin=True), **options).synthesize(range(1), flat).images
    moved = noisy - quiet
    assert moved.var().item() == pytest.approx(5 * 2 * 0.02, rel=0.05)
    assert abs(moved.mean().item()) < 0.02


def test_images_leave_the_box_in_normalised_space(runtime):
    made = make(runtime, (1, 6, 6), 5, groups=4, batch_size=40, steps=1).synthesize(range(1), conv_teacher())
    inputs = conv_teacher().normalize(made.images)
    assert made.images.min() < 0 and made.images.max() > 1
    assert inputs.std().item() == pytest.approx(1.0, abs=0.1)  # N(0, 1) there, whatever mean and std


def test_a_seed_repeats_and_another_differs(runtime, line):
    first, second, other = (make(runtime, seed=s).synthesize(range(2), line).images for s in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.allclose(first, other)
    assert not torch.allclose(first[:8], first[8:])


def test_the_teacher_is_left_as_it_was(runtime, unchanged):
    teacher = conv_teacher()
    check = unchanged(teacher)
    prior = Prior({"bn": BatchNormPrior(1.0), "tv": TotalVariation(1.0)})
    make(runtime, (1, 6, 6), 5, prior=prior).synthesize(range(2), teacher)
    check()


def test_synthesis_costs_one_evaluation_an_image_and_step(runtime, line):
    with line.counted_as("synthesis"):
        make(runtime, steps=7).synthesize(range(2), line)
    assert line.evals["synthesis"] == 7 * 2 * 8


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"groups": 3}, "groups=3 does not divide batch_size=8"),
        ({"groups": 4}, "groups=4 exceeds the teacher's 2 classes"),
        ({"steps": 0}, "steps"),
        ({"rounds": 0}, "rounds"),
        ({"batch_size": 0}, "batch_size"),
        ({"class_weight": -1.0}, "negative"),
        ({"contrast_weight": -1.0}, "negative"),
        ({"contrast": "l1"}, "contrast"),
        ({"optimizer": "lbfgs"}, "optimizer"),
        ({"temperature": 0.0}, "temperature"),
        ({"step_size": 0.0}, "step_size"),
        ({"snapshots": 0}, "snapshots must be between 1 and steps=3, got 0"),
        ({"snapshots": 4}, "snapshots must be between 1 and steps=3, got 4"),
    ],
)
def test_impossible_numbers_are_refused(runtime, wrong, message):
    with pytest.raises(ValueError, match=message):
        make(runtime, **wrong)


def test_nothing_to_minimise_is_found_before_any_work(runtime, line):
    with pytest.raises(ValueError, match="nothing to minimise"):
        make(runtime, class_weight=0.0, contrast_weight=0.0).check(line.net)


# --- warnings before the time is spent


def weighed(size: int, tv: float, contrast: float) -> CAKE:
    noise = Noise("linear", eps=0.1, decades=4)
    prior = Prior({"tv": TotalVariation(tv)})
    return CAKE((1, size, size), 10, prior, noise, 2, 2, 500, 10, class_weight=1e3, contrast_weight=contrast)


def test_a_total_variation_that_drowns_the_image_is_told():
    flat = nn.Sequential(nn.Flatten(), nn.Linear(4, 10))
    assert weighed(28, 1e7, 1e-3).warnings(flat) == []  # the published recipe on the images it was made for
    (said,) = weighed(16, 1e7, 1e-3).warnings(flat)
    assert "prior.tv.weight" in said and "1e+05" in said
    assert weighed(16, 1e5, 1e-3).warnings(flat) == []


def test_too_little_contrast_for_a_network_that_pools_is_told():
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 10))
    (said,) = weighed(28, 1e5, 1e-3).warnings(pooled)
    assert "contrast_weight=10" in said
    assert weighed(28, 1e5, 10).warnings(pooled) == []
