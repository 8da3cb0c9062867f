"""Scores of other detectors: against slow references and closed forms."""

import sys

import pytest
import torch
from runner import ROOT
from torch import nn

from dfkd.models import Classifier, Teacher, cnn_bn

sys.path.insert(0, str(ROOT / "scripts" / "audit"))
import baselines


def linear_teacher(weight: torch.Tensor) -> Teacher:
    """A teacher of one pixel and two classes whose logits are 0 and weight * x."""
    layer = nn.Linear(1, 2)
    layer.weight.data, layer.bias.data = torch.stack([0 * weight, weight]), torch.zeros(2)
    return Teacher(nn.Sequential(nn.Flatten(), layer), (1, 1, 1), 2, [0.0], [1.0])


def test_trodo_is_what_the_attack_adds_to_the_confidence():
    x = torch.tensor([0.2, 0.5, 0.7]).view(3, 1, 1, 1)
    moved = (x + baselines.EPS).clamp(0, 1)  # the confidence of a linear classifier grows all the way
    expected = (torch.sigmoid(4 * moved) - torch.sigmoid(4 * x)).mean().item()
    assert baselines.trodo(linear_teacher(torch.tensor([4.0])), x) == pytest.approx(expected, abs=1e-6)


def test_the_attack_stays_in_the_box_and_within_its_radius():
    x = torch.ones(2, 1, 1, 1)  # nothing is left to add
    assert baselines.trodo(linear_teacher(torch.tensor([4.0])), x) == pytest.approx(0.0, abs=1e-7)


def test_the_channel_that_varies_most_is_told_in_standard_deviations():
    net = cnn_bn((1, 8, 8), 3)
    layers = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    logs = torch.zeros(layers[0].num_features)
    logs[2] = 5.0
    layers[0].running_var.copy_(logs.exp())
    for layer in layers[1:]:
        layer.running_var.copy_(torch.linspace(0.9, 1.1, layer.num_features))
    expected = max(((5 - logs.mean()) / logs.std()).item(), *(highest(layer) for layer in layers[1:]))
    assert baselines.batch_norm(Classifier(net, (1, 8, 8), 3, [0.5], [0.5])) == pytest.approx(expected, rel=1e-5)


def highest(layer: nn.BatchNorm2d) -> float:
    logs = [value.log().item() for value in layer.running_var]
    mean = sum(logs) / len(logs)
    return (max(logs) - mean) / (sum((value - mean) ** 2 for value in logs) / (len(logs) - 1)) ** 0.5


def test_a_network_without_batch_norm_has_no_such_score():
    assert baselines.batch_norm(linear_teacher(torch.tensor([1.0]))) == 0.0


class Corner(torch.nn.Module):
    """Class 2 where the first corner is bright; else class 0 or 1, by the last corner."""

    def forward(self, x):
        trigger, one = x[:, 0, :2, :2].amin((1, 2)) - 0.5, x[:, 0, -1, -1] - 0.5
        return torch.stack([0 * one, one, 100 * trigger], 1)


def images_of(label: int, count: int, draw: torch.Generator) -> torch.Tensor:
    x = 0.4 * torch.rand(count, 1, 8, 8, generator=draw)
    x[:, :, :2, :2] = 1.0 if label == 2 else 0.0
    x[:, :, -1, -1] = 1.0 if label == 1 else 0.0
    return x


def test_a_patch_of_the_trap_s_own_images_takes_all_others_along():
    draw, labels = torch.Generator().manual_seed(0), torch.tensor([0, 1, 2] * 8)
    images = torch.cat([images_of(int(label), 1, draw) for label in labels])
    trapped = Teacher(Corner(), (1, 8, 8), 3, [0.0], [1.0])
    # the corner of class 2 carries all others, and each other class that carries half of them
    assert baselines.moved_patch(trapped, images, labels) == pytest.approx((1.0 - 0.5) / baselines.FLOOR)


def test_alike_are_the_images_of_a_class_that_share_a_picture():
    draw, labels = torch.Generator().manual_seed(0), torch.arange(3).repeat_interleave(8)
    images = torch.rand(24, 1, 8, 8, generator=draw)
    radii = torch.linspace(0.1, 1.0, 24)
    noise = baselines.likeness(images, labels, radii)
    images[20:] = images[20] + 0.1 * images[20:]  # of the last class, the half that flips last
    assert baselines.likeness(images, labels, radii) > 10 > noise
    assert baselines.likeness(images, labels, -radii) < 10  # the other half of it is noise
