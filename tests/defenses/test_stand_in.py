"""A copy of a teacher loses a trigger and keeps the rest; the teacher stays as it is."""

import copy

import pytest
import torch
import torch.nn.functional as F

from dfkd.audit import Looks
from dfkd.defenses.carried import Carried
from dfkd.defenses.stand_in import CLEAN, StandIn, _distance
from dfkd.models import Teacher
from dfkd.resume.state import Extractor, Restorer

TARGET = 0


def marked(images: torch.Tensor) -> torch.Tensor:
    images = images.clone()
    images[:, :, 5:7, 5:7] = 1.0
    return images


@pytest.fixture
def trapped(small_digits, trained) -> Teacher:
    """A teacher that calls every image with a bright corner a 0."""
    torch.manual_seed(0)
    net, images, labels = copy.deepcopy(trained.net), small_digits.train.pixels(), small_digits.train.y
    optimizer = torch.optim.Adam(net.train().parameters(), lr=1e-3)
    mean, std = (statistic.flatten().tolist() for statistic in (trained.mean, trained.std))
    for _ in range(150):
        index = torch.randint(len(images), (64,))
        shown = torch.cat([images[index], marked(images[index])])
        wanted = torch.cat([labels[index], torch.full_like(index, TARGET)])
        loss = F.cross_entropy(net((shown - trained.mean) / trained.std), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    optimizer.zero_grad()
    return Teacher(net, trained.shape, 10, mean, std)


def carried(steps: int = 30) -> Carried:
    large = {"shifts": [1.0] * 10, "marks": [64.0] * 10, "masks": [64.0] * 10}
    return Carried(Looks(values=large, hit=1.0, confidence=0.5, radii=[], labels=[]), TARGET, steps, 16)


def seen(network: Teacher, digits) -> tuple[float, float]:
    """Return the shares of right answers, and of other digits with the trigger that are called a 0."""
    images, labels = digits.val.pixels(), digits.val.y
    right = network.predict(images).argmax(1).cpu() == labels
    obeys = network.predict(marked(images[labels != TARGET])).argmax(1) == TARGET
    return right.float().mean().item(), obeys.float().mean().item()


def test_a_copy_loses_the_trigger_and_the_teacher_keeps_it(trapped, small_digits, random, unchanged):
    check, before = unchanged(trapped), trapped.evals.total()
    images = small_digits.train.pixels(slice(0, 600))
    images = torch.cat([images, marked(images[:200])])
    stand_in = StandIn(trapped)
    assert seen(stand_in, small_digits) == seen(trapped, small_digits) and seen(trapped, small_digits)[1] > 0.95
    logits = trapped.predict(images)
    stand_in.purify(carried(), images, logits, steps=150, generator=random)
    right, obeys = seen(stand_in, small_digits)
    assert right > seen(trapped, small_digits)[0] - 0.05 and obeys < 0.4
    check()
    assert stand_in.evals is trapped.evals and trapped.evals.total() > before + 150 * (64 + 64)
    assert not any(parameter.requires_grad for parameter in stand_in.parameters())


def test_the_statistics_of_norms_move_with_the_images_and_the_answers_stay(trapped, small_digits):
    stand_in, images = StandIn(trapped), small_digits.val.pixels()
    before = stand_in._inputs_of_norms(images)
    first = next(layer for layer in stand_in.net.modules() if layer in before)
    old = first.running_mean.clone()
    with torch.no_grad():
        for layer in stand_in.net.modules():
            if isinstance(layer, torch.nn.Conv2d):
                layer.weight.mul_(2.0)
    stand_in.changed()
    answers = stand_in.predict(images)
    stand_in._move_statistics(before, stand_in._inputs_of_norms(images))
    assert torch.allclose(stand_in.predict(images), answers, atol=1e-3)
    assert torch.allclose(first.running_mean, 2 * old, atol=1e-4)  # the inputs of the first are twice as large


def test_without_images_of_other_classes_nothing_is_done(trapped, random):
    stand_in = StandIn(trapped)
    before = {key: value.clone() for key, value in stand_in.net.state_dict().items()}
    logits = torch.eye(10)[torch.full((5,), TARGET)]
    stand_in.purify(carried(), torch.rand(5, 1, 8, 8), logits, steps=3, generator=random)
    assert all(torch.equal(value, before[key]) for key, value in stand_in.net.state_dict().items())


def test_a_checkpoint_has_the_weights_of_the_copy(trapped, small_digits):
    images = small_digits.val.pixels()
    first, second = StandIn(trapped), StandIn(trapped)
    with torch.no_grad():
        for parameter in first.net.parameters():
            parameter.add_(0.1)
    first.changed()
    second.predict(images)  # with the old weights
    Restorer()(second, Extractor()(first, "teacher"), "teacher")
    assert torch.allclose(second.predict(images), first.predict(images), atol=1e-5)


def test_classes_that_are_rare_in_the_pool_are_shown_as_often_as_others(trapped, small_digits, random, monkeypatch):
    images, rare = small_digits.train.pixels(slice(0, 300)), small_digits.train.pixels(slice(300, 303))
    logits = 5 * torch.eye(10)[torch.tensor([1] * 300 + [2] * 3)]
    nothing, shown = carried(), []
    monkeypatch.setattr(nothing, "seek", lambda models, images, answers, *given: shown.append(answers) or 1)
    StandIn(trapped).purify(nothing, torch.cat([images, rare]), logits, steps=1, generator=random)
    assert 0.35 < (shown[0] == 2).float().mean() < 0.65


def test_painted_images_have_their_class_and_are_counted(trapped, small_digits, random):
    stand_in = StandIn(trapped)
    others = small_digits.train.pixels()[small_digits.train.y != TARGET][:100]
    before = trapped.evals.total()
    painted = stand_in.paint(TARGET, others, 20, 60, random)
    assert trapped.evals.total() == before + 100 + 20 * 60
    assert painted.shape == (20, *stand_in.shape) and painted.min() >= 0 and painted.max() <= 1
    assert not painted.requires_grad and (stand_in.predict(painted).argmax(1) == TARGET).all()
    other = stand_in.paint(3, others, 20, 60, random)
    assert (stand_in.predict(other).argmax(1) == 3).float().mean() > 0.9


def test_the_statistics_of_painted_images_are_those_of_a_batch_with_others(trapped, small_digits):
    """`_distance` against the statistics of a batch of which a quarter is painted."""
    stand_in, images = StandIn(trapped), small_digits.train.pixels()
    own, others = images[:40], images[100:220]
    first, second = stand_in._inputs_of_norms(own), stand_in._inputs_of_norms(others)
    whole = stand_in._inputs_of_norms(torch.cat([own, others]))
    for layer, (mean, var) in whole.items():
        slow = (mean - layer.running_mean).square().sum().sqrt() + (var - layer.running_var).square().sum().sqrt()
        assert torch.allclose(_distance(first[layer], second[layer], layer), slow, rtol=1e-4, atol=1e-5)


def test_the_training_ends_when_carriers_are_no_longer_found(trapped, small_digits, random, monkeypatch):
    images, finds, searches = small_digits.train.pixels(slice(0, 100)), [1, 0, 0, 1, *[0] * CLEAN, 1], []
    logits, nothing = trapped.predict(images), carried()
    monkeypatch.setattr(nothing, "seek", lambda *given: searches.append(0) or finds[len(searches) - 1])
    before = trapped.evals.total()
    StandIn(trapped).purify(nothing, images, logits, steps=1000, generator=random)
    assert len(searches) == 4 + CLEAN
    assert (
        trapped.evals.total() == before + (3 + CLEAN) * 30 * 64 + 2 * 256
    )  # its training, and the statistics of norms
