import math

import pytest
import torch
from on_device import on_a_cpu
from runner import composed

from dfkd.config.build import Builder
from dfkd.defenses import ATEsc, Confidence, Entropy, FeatureDistance, Inverted, Margin, PGDFlip, Random
from dfkd.defenses.threshold import Threshold
from dfkd.models import cnn_bn

LOGITS = torch.tensor([[math.log(0.5), math.log(0.25), math.log(0.25)], [9.0, 9.0, 9.0], [30.0, 0.0, 1.0]])


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(4)


@pytest.fixture
def images(small_digits) -> torch.Tensor:
    return small_digits.val.pixels(slice(0, 60))


def test_a_value_takes_one_side_of_itself_and_not_itself():
    score = torch.tensor([0.1, 0.5, 0.9, 0.4])
    assert Threshold(0.5, None, "low")(score).tolist() == [True, False, False, True]
    assert Threshold(0.4, None, "high")(score).tolist() == [False, True, True, False]


@pytest.mark.parametrize(("quantile", "fragile"), [(0.0, []), (0.25, [3]), (0.5, [0, 3]), (1.0, [0, 1, 2, 3])])
def test_a_quantile_takes_its_share_of_the_batch(quantile, fragile):
    score = torch.tensor([0.2, 0.5, 0.9, 0.1])
    assert Threshold(None, quantile, "low")(score).nonzero().flatten().tolist() == fragile
    assert torch.equal(Threshold(None, quantile, "high")(-score), Threshold(None, quantile, "low")(score))


def test_among_equal_scores_the_earlier_image_comes_first():
    for side in ("low", "high"):
        assert Threshold(None, 0.5, side)(torch.zeros(6)).tolist() == [True] * 3 + [False] * 3


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((None, None, "low"), "exactly one of value and quantile"),
        ((0.5, 0.5, "low"), "exactly one of value and quantile"),
        ((None, 1.5, "low"), r"quantile .*1\.5"),
        ((0.5, None, "middle"), "'low' or 'high', got 'middle'"),
    ],
)
def test_impossible_thresholds_are_refused(given, said):
    with pytest.raises(ValueError, match=said):
        Threshold(*given)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (Entropy, [1.5 * math.log(2), math.log(3), 0.0]),
        (Confidence, [0.5, 1 / 3, 1.0]),
        (Margin, [math.log(2), 0.0, 29.0]),
    ],
)
def test_scores_of_known_answers(kind, expected):
    found = kind(quantile=1 / 3).split(None, torch.zeros(3, 1, 1, 1), LOGITS, seeded())
    assert found.score.tolist() == pytest.approx(expected, abs=1e-5)
    assert found.fragile.tolist() == [i == expected.index(min(expected)) for i in range(3)]
    highest = kind(quantile=1 / 3, fragile="high").split(None, torch.zeros(3, 1, 1, 1), LOGITS, seeded()).fragile
    assert highest.tolist() == [i == expected.index(max(expected)) for i in range(3)]


def test_scores_need_no_teacher_and_no_randomness(teacher, images):
    logits, generator = teacher.predict(images), seeded()
    before = teacher.evals.total(), generator.get_state()
    Entropy(quantile=0.5).split(teacher, images, logits, generator)
    assert teacher.evals.total() == before[0] and torch.equal(generator.get_state(), before[1])


def test_the_feature_distance_is_that_of_every_image_alone(teacher, images, unchanged):
    check = unchanged(teacher)
    found = FeatureDistance(quantile=0.5).split(teacher, images, teacher.predict(images), seeded())
    check()
    body, norms = teacher.net.body, (1, 5, 9)
    for i in (0, 17):
        distances = []
        for position in norms:
            layer = body[position]
            with torch.no_grad():
                h = body[:position](teacher.normalize(images[i : i + 1]))[0]
            channels = [
                (h[c].mean().item() - layer.running_mean[c].item()) ** 2 / (layer.running_var[c].item() + 1e-5)
                for c in range(len(h))
            ]
            distances.append(sum(channels) / len(channels))
        assert found.score[i].item() == pytest.approx(sum(distances) / len(distances), rel=1e-4)


def test_noise_is_further_from_the_statistics_than_the_training_images(teacher, small_digits, random):
    digits, noise = small_digits.train.pixels(slice(0, 40)), torch.rand(40, 1, 8, 8, generator=random)
    both = torch.cat([digits, noise])
    fragile = FeatureDistance(quantile=0.5).split(teacher, both, teacher.predict(both), seeded()).fragile
    assert fragile[:40].float().mean() > on_a_cpu(random.device, 0.8, 0.7)


def test_the_feature_distance_needs_batch_norm_and_says_so_through_every_wrapper():
    plain = cnn_bn((1, 8, 8), 10, norm="none")
    criterion = FeatureDistance(quantile=0.5)
    for checked in (criterion, Inverted(criterion), Random(criterion)):
        checked.check(cnn_bn((1, 8, 8), 10))
        with pytest.raises(ValueError, match="no BatchNorm layer"):
            checked.check(plain)
        with pytest.raises(ValueError, match="no BatchNorm layer"):
            ATEsc(checked).check(plain, None)


def attack(**threshold) -> PGDFlip:
    return PGDFlip(eps=16 / 255, steps=3, box=(0.0, 1.0), **threshold)


def test_an_attacks_margin_can_decide_by_value_or_quantile(teacher, images):
    logits = teacher.predict(images)
    flip, value, half = (
        attack(**given).split(teacher, images, logits, seeded()) for given in ({}, {"value": 0.0}, {"quantile": 0.5})
    )
    assert torch.equal(value.fragile, flip.fragile) and 5 < flip.fragile.sum() < 55
    assert half.fragile.sum() == 30
    assert half.score[half.fragile].max() <= half.score[~half.fragile].min()
    assert (value.score <= flip.score).all() and (value.score < flip.score).any()  # attacked beyond the flip
    with pytest.raises(ValueError, match="exactly one"):
        attack(value=0.0, quantile=0.5)


def test_fgsm_is_one_step_of_the_whole_radius(teacher, images):
    from omegaconf import OmegaConf

    node = composed("defense=atesc", "criterion@defense.criterion=fgsm", "defense.criterion.eps=16/255").defense
    builder = Builder(box=(0.0, 1.0))
    fgsm = builder.build(OmegaConf.to_container(node, resolve=True)["criterion"], "criterion")
    assert builder.problems == []
    x = images.clone().requires_grad_()
    logits = teacher(x)
    (slope,) = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, logits.argmax(1), reduction="sum"), x)
    moved = teacher.predict((images + 16 / 255 * slope.sign()).clamp(0, 1))
    found = fgsm.split(teacher, images, logits.detach(), seeded())
    assert torch.equal(found.fragile, moved.argmax(1) != logits.argmax(1)) and found.fragile.any()
