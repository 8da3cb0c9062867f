import math

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dfkd.models import Teacher, cnn, cnn_bn
from dfkd.models.common import FeatureNet
from dfkd.models.hooks import BatchNormStatistics
from dfkd.priors import (
    L2,
    Activation,
    Balance,
    BatchNormPrior,
    DiagonalTotalVariation,
    MeanImage,
    Prior,
    TeacherPass,
    TotalVariation,
    TotalVariationL2,
)


def teacher_pass(images: torch.Tensor, logits: torch.Tensor | None = None, sets: int = 1) -> TeacherPass:
    return TeacherPass(images, torch.zeros(len(images), 3) if logits is None else logits, sets)


def slow_tv(images: torch.Tensor) -> float:
    total, (count, channels, height, width) = 0.0, images.shape
    for image in images.reshape(count * channels, height, width):
        down = [abs(image[i + 1, j] - image[i, j]) for i in range(height - 1) for j in range(width)]
        right = [abs(image[i, j + 1] - image[i, j]) for i in range(height) for j in range(width - 1)]
        total += sum(down) / len(down) + sum(right) / len(right)
    return float(total) / (count * channels)


def test_tv_equals_the_loop_over_neighbours(random):
    images = torch.randn(3, 2, 4, 5, generator=random)
    assert TotalVariation()(teacher_pass(images)).item() == pytest.approx(slow_tv(images), rel=1e-5)


def test_tv_of_a_ramp_by_hand():
    image = torch.arange(4).float().view(1, 1, 1, 4) * 2 + torch.arange(3).float().view(1, 1, 3, 1) * 5
    assert TotalVariation()(teacher_pass(image)).item() == pytest.approx(7.0)


def test_tv_of_an_image_one_pixel_wide_is_finite():
    images = torch.tensor([1.0, 4.0]).view(1, 1, 2, 1).requires_grad_()
    value = TotalVariation()(teacher_pass(images))
    assert value.item() == 3.0
    value.sum().backward()
    assert images.grad.isfinite().all()


# Where the neighbour of a pixel lies: below, right, below right, below left.
NEIGHBOURS = ((1, 0), (0, 1), (1, 1), (1, -1))


def neighbour_differences(image: list[list[float]], down: int, right: int) -> list[float]:
    height, width = len(image), len(image[0])
    return [
        image[i + down][j + right] - image[i][j]
        for i in range(height)
        for j in range(width)
        if 0 <= i + down < height and 0 <= j + right < width
    ]


def test_tv_with_diagonals_equals_the_loop_over_neighbours(random):
    images = torch.randn(3, 2, 4, 5, generator=random)
    total = 0.0
    for plane in images.flatten(0, 1).tolist():
        for neighbour in NEIGHBOURS:
            differences = neighbour_differences(plane, *neighbour)
            total += sum(map(abs, differences)) / len(differences)
    assert DiagonalTotalVariation()(teacher_pass(images)).item() == pytest.approx(total / 6, rel=1e-5)


def test_tv_l2_equals_the_loop_over_neighbours(random):
    images = torch.randn(3, 2, 4, 5, generator=random)
    expected = 0.0
    for neighbour in NEIGHBOURS:
        squares = (d * d for plane in images.flatten(0, 1).tolist() for d in neighbour_differences(plane, *neighbour))
        expected += math.sqrt(sum(squares))
    assert TotalVariationL2()(teacher_pass(images)).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("term", [DiagonalTotalVariation(), TotalVariationL2()])
def test_tv_of_flat_and_of_narrow_images_is_finite(term):
    for shape in ((2, 1, 3, 3), (2, 1, 2, 1)):
        images = torch.full(shape, 0.5, requires_grad=True)
        value = term(teacher_pass(images))
        assert value.item() == 0.0
        value.sum().backward()
        assert images.grad.isfinite().all()


def test_l2_is_the_mean_norm_of_an_image():
    images = torch.tensor([[3.0, 4.0], [0.0, 2.0]]).view(2, 1, 2, 1)
    assert L2()(teacher_pass(images)).item() == pytest.approx(3.5)


def test_balance_is_the_negative_entropy_of_the_mean_prediction(random):
    logits = torch.randn(5, 3, generator=random)
    mean = [sum(logits[i].softmax(0)[c].item() for i in range(5)) / 5 for c in range(3)]
    expected = sum(p * math.log(p) for p in mean)
    assert Balance()(teacher_pass(torch.zeros(5, 1, 2, 2), logits)).item() == pytest.approx(expected, rel=1e-5)


def test_balance_is_lowest_where_every_class_is_used_and_finite_where_one_is_not():
    every = 100 * torch.eye(3)
    one = torch.tensor([[200.0, 0.0, 0.0]]).repeat(3, 1).requires_grad_()
    images = torch.zeros(3, 1, 2, 2)
    assert Balance()(teacher_pass(images, every)).item() == pytest.approx(-math.log(3))
    value = Balance()(teacher_pass(images, one))
    value.sum().backward()
    assert value.item() == pytest.approx(0.0, abs=1e-6)
    assert one.grad.isfinite().all()


def one_layer_teacher() -> Teacher:
    torch.manual_seed(0)
    net = FeatureNet(
        nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        nn.Linear(3, 2),
    )
    bn = net.body[1]
    bn.running_mean.copy_(torch.tensor([0.1, -0.2, 0.3]))
    bn.running_var.copy_(torch.tensor([0.5, 1.5, 2.5]))
    return Teacher(net, (2, 6, 6), 2, [0.0], [1.0])


def manual_bn(teacher: Teacher, images: torch.Tensor) -> float:
    h = teacher.net.body[0](images)
    bn, total_mean, total_var = teacher.net.body[1], 0.0, 0.0
    for channel in range(h.shape[1]):
        values = h[:, channel].flatten().tolist()
        mean = sum(values) / len(values)
        var = sum((v - mean) ** 2 for v in values) / len(values)  # biased
        total_mean += (mean - bn.running_mean[channel].item()) ** 2
        total_var += (var - bn.running_var[channel].item()) ** 2
    return math.sqrt(total_mean) + math.sqrt(total_var)


def test_bn_equals_the_statistics_computed_by_hand(random):
    teacher = one_layer_teacher()
    images = torch.randn(4, 2, 6, 6, generator=random)
    prior = Prior({"bn": BatchNormPrior(weight=2.0)})
    value = prior(prior.run_teacher(teacher, images))["bn"]
    assert value.shape == (1,)
    assert value.item() == pytest.approx(2 * manual_bn(teacher, images), rel=1e-4)


def test_bn_sums_over_all_layers(random):
    teacher = Teacher(cnn_bn((1, 8, 8), 3, widths=(4, 6)), (1, 8, 8), 3, [0.0], [1.0])
    images = torch.randn(5, 1, 8, 8, generator=random)
    conv1, bn1, relu, pool, conv2, bn2 = teacher.net.body[:6]
    first = conv1(images)
    second = conv2(pool(relu(bn1(first))))
    expected = 0.0
    for h, bn in ((first, bn1), (second, bn2)):
        var, mean = torch.var_mean(h, dim=(0, 2, 3), correction=0)
        expected += (var - bn.running_var).norm() + (mean - bn.running_mean).norm()
    prior = Prior({"bn": BatchNormPrior()})
    assert prior(prior.run_teacher(teacher, images))["bn"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_bn_of_a_batch_that_looks_right_is_0_and_has_a_finite_gradient():
    mean, var = (torch.tensor([[1.0, 2.0]], requires_grad=True) for _ in range(2))
    seen = BatchNormStatistics(mean, var, torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.5]))
    value = BatchNormPrior()(TeacherPass(torch.zeros(1), torch.zeros(1), 1, [seen]))
    assert value.item() == pytest.approx(0.5)
    value.sum().backward()
    assert mean.grad.tolist() == [[0.0, 0.0]] and var.grad.tolist() == [[0.0, -1.0]]


def every_term(folder) -> list:
    save_file({"mean": torch.full((1, 8, 8), 0.25)}, folder / "mean.safetensors")
    return [
        TotalVariation(2.0),
        DiagonalTotalVariation(2.0),
        TotalVariationL2(0.3),
        L2(0.5),
        BatchNormPrior(3.0),
        Balance(20.0),
        Activation(0.7),
        MeanImage(str(folder / "mean.safetensors"), (1, 8, 8), 1.5),
    ]


def test_every_term_of_many_sets_equals_that_of_each_set_alone(random, tmp_path):
    teacher = Teacher(cnn_bn((1, 8, 8), 3, widths=(4, 6)), (1, 8, 8), 3, [0.0], [1.0])
    prior = Prior(dict(enumerate(every_term(tmp_path))))
    images = torch.randn(12, 1, 8, 8, generator=random) * torch.arange(1, 13).view(-1, 1, 1, 1)
    together = prior(prior.run_teacher(teacher, images, sets=3))
    for number, part in enumerate(images.split(4)):
        for name, value in prior(prior.run_teacher(teacher, part)).items():
            assert together[name].shape == (3,)
            assert together[name][number].item() == pytest.approx(value.item(), rel=1e-5), name


def test_every_term_has_gradients_to_the_images(random, tmp_path):
    teacher = Teacher(cnn_bn((1, 8, 8), 3, widths=(4, 6)), (1, 8, 8), 3, [0.0], [1.0])
    for term in every_term(tmp_path):
        images = torch.randn(4, 1, 8, 8, generator=random, requires_grad=True)
        prior = Prior({"term": term})
        prior(prior.run_teacher(teacher, images))["term"].sum().backward()
        assert images.grad.abs().sum() > 0, type(term).__name__


def test_a_term_of_weight_zero_is_dropped_and_a_negative_weight_refused():
    prior = Prior({"bn": BatchNormPrior(0.0), "tv": TotalVariation(1.0)})
    assert list(prior.terms) == ["tv"]
    assert not prior.needs_batch_norm
    with pytest.raises(ValueError, match="negative"):
        TotalVariation(-1.0)


def test_the_bn_prior_on_a_network_without_batch_norm_says_what_to_do():
    net = cnn((1, 28, 28), 10)
    with pytest.raises(ValueError, match=r"prior 'bn'.*no BatchNorm.*~prior\.bn"):
        Prior({"bn": BatchNormPrior()}).check(net)
    Prior({"tv": TotalVariation()}).check(net)
    Prior({"bn": BatchNormPrior()}).check(cnn_bn((1, 8, 8), 10))


def test_hooks_are_gone_after_a_look_and_after_a_failed_one(random, unchanged):
    teacher = one_layer_teacher()
    check = unchanged(teacher)
    prior = Prior({"bn": BatchNormPrior()})
    prior.run_teacher(teacher, torch.randn(2, 2, 6, 6, generator=random))
    check()
    with pytest.raises(RuntimeError):
        prior.run_teacher(teacher, torch.randn(2, 5, 6, 6, generator=random))
    check()


def test_activation_is_minus_the_mean_size_of_the_features(random):
    teacher = one_layer_teacher()
    images = torch.randn(4, 2, 6, 6, generator=random)
    values = teacher.net.features(images).flatten().tolist()
    prior = Prior({"activation": Activation(weight=2.0)})
    value = prior(prior.run_teacher(teacher, images))["activation"]
    assert value.shape == (1,)
    assert value.item() == pytest.approx(-2 * sum(map(abs, values)) / len(values), rel=1e-5)


def test_features_are_looked_at_only_where_a_term_asks(random, unchanged):
    teacher = one_layer_teacher()
    check = unchanged(teacher)
    images = torch.randn(2, 2, 6, 6, generator=random)
    both = Prior({"bn": BatchNormPrior(), "activation": Activation()}).run_teacher(teacher, images)
    assert both.features.shape == (2, 3) and len(both.statistics) == 1
    assert Prior({"bn": BatchNormPrior()}).run_teacher(teacher, images).features is None
    assert Prior({"activation": Activation()}).run_teacher(teacher, images).statistics == []
    check()
    with pytest.raises(RuntimeError):
        Prior({"activation": Activation()}).run_teacher(teacher, torch.randn(2, 5, 6, 6, generator=random))
    check()


def test_the_activation_prior_on_a_network_without_a_linear_head_says_what_to_do():
    prior = Prior({"activation": Activation()})
    with pytest.raises(ValueError, match=r"prior 'activation'.*Sequential.*`head`.*~prior\.activation"):
        prior.check(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))
    for net in (cnn((1, 28, 28), 10), cnn_bn((1, 8, 8), 10)):
        prior.check(net)
