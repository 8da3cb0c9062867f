import pytest
import torch
from torch import nn

from dfkd.attacks import PGD, attack_warnings, is_deterministic
from dfkd.models import Classifier, Teacher, cnn_bn
from dfkd.models.common import FeatureNet

WEIGHT = [[1.0, -2.0, 0.5], [-0.5, 1.0, 0.0]]
DIFFERENCE = torch.tensor([1.5, -3.0, 0.5])  # of the two rows; its 1-norm is 5


def points(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 1, 3, 1, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def inputs():
    """Record what a classifier's network sees (normalised images)."""

    def watch(model: Classifier) -> list[torch.Tensor]:
        seen = []
        model.net.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0].detach().clone()))
        return seen

    return watch


@pytest.mark.parametrize("loss", ["ce", "margin"])
@pytest.mark.parametrize("random_start", [False, True])
def test_pgd_equals_its_closed_form_on_a_linear_model(linear, random, loss, random_start):
    model, x, eps = linear(WEIGHT), points(200), 0.2
    clean = (x.flatten(1) @ DIFFERENCE.to(x)).abs()
    attack = PGD(eps, step=0.1, steps=5, random_start=random_start, loss=loss, box=None)
    result = attack.attack(model, x, random, stop_when_flipped=False)
    assert torch.allclose(result.margin, clean - eps * 5, atol=1e-5)
    assert torch.equal(result.flipped, eps * 5 > clean)
    assert 0 < result.flipped.sum() < 200


def test_mean_and_std_inside_the_model_count(linear, random):
    x, eps, std = torch.rand(200, 1, 3, 1, generator=random), 0.05, 0.25
    model = linear(WEIGHT, [0.3, 0.0], mean=(0.5,), std=(std,))
    clean = (((x.flatten(1) - 0.5) / std) @ DIFFERENCE.to(x) + 0.3).abs()
    result = PGD(eps, steps=4, box=None).attack(model, x, random, stop_when_flipped=False)
    assert torch.allclose(result.margin, clean - eps / std * 5, atol=1e-4)


def test_every_channel_has_its_own_radius(linear, random):
    model, x = linear(WEIGHT, shape=(3, 1, 1)), points(50).view(50, 3, 1, 1)
    clean = (x.flatten(1) @ DIFFERENCE.to(x)).abs()
    result = PGD([0.3, 0.0, 0.1], steps=4, box=None).attack(model, x, random, stop_when_flipped=False)
    assert torch.allclose(result.margin, clean - (0.3 * 1.5 + 0.1 * 0.5), atol=1e-5)


def test_the_default_step_is_two_and_a_half_radii_over_the_steps(linear, random, inputs):
    model = linear([[1.0, 0.0], [-1.0, 0.0]])
    seen = inputs(model)
    x = torch.full((1, 1, 2, 1), 5.0)
    PGD(0.4, steps=10, random_start=False, box=None).attack(model, x, random)
    path = [5.0 - s[0, 0, 0, 0].item() for s in seen]
    assert path == pytest.approx([0, 0, 0.1, 0.2, 0.3, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4], abs=1e-5)


def test_the_box_is_respected(linear, random, inputs):
    model = linear([[1.0, 0.0], [-1.0, 0.1]])
    seen = inputs(model)
    x = torch.rand(40, 1, 2, 1, generator=random)
    PGD(0.3, steps=5).attack(model, x, random, stop_when_flipped=False)
    assert min(s.min() for s in seen) == 0 and max(s.max() for s in seen) == 1
    assert all(((s - x).abs() <= 0.3 + 1e-6).all() for s in seen)


def test_an_image_at_the_edge_of_the_box_can_only_move_inside(linear, random):
    model = linear([[-1.0], [1.0]], [0.9, 0.0])  # at 0 class 0; the attack pushes up
    up = torch.zeros(1, 1, 1, 1)
    assert PGD(0.5, steps=3).attack(model, up, random).flipped.all()
    down = linear([[1.0], [-1.0]], [0.9, 0.0])  # at 0 class 0; the attack pushes down, out of the box
    assert not PGD(0.5, steps=3).attack(down, up, random).flipped.any()
    assert PGD(0.5, steps=3, box=None).attack(down, up, random).flipped.all()


def test_images_outside_the_box_are_not_pulled_into_it(linear, random, inputs):
    model = linear([[1.0, -1.0], [-1.0, 1.0]])
    seen = inputs(model)
    x = torch.tensor([[2.0, -1.5], [-3.0, 0.5], [-3.0, -8.0]]).view(3, 1, 2, 1)
    PGD(0.1, steps=5).attack(model, x, random, stop_when_flipped=False)
    for s in seen:
        assert ((s - x).abs() <= 0.1 + 1e-6).all()
        assert (s[0, 0, 0] <= 2.0).all() and (s[0, 0, 1] >= -1.5).all() and (s[1, 0, 0] >= -3.0).all()
    assert seen[-1].flatten(1).tolist()[0] == pytest.approx([1.9, -1.4])
    assert seen[-1].flatten(1).tolist()[2] == pytest.approx([-3.0, -7.9])  # not further out either


def test_random_starts_lie_in_the_ball_and_fill_it(linear, random, inputs):
    model = linear(WEIGHT)
    seen = inputs(model)
    x = points(300)
    PGD(0.2, steps=1, box=None).attack(model, x, random)
    assert torch.equal(seen[0], x)
    moved = seen[1] - x
    assert moved.abs().max() <= 0.2 + 1e-6
    assert moved.min() < -0.19 and moved.max() > 0.19
    assert moved.std().item() == pytest.approx(0.2 / 3**0.5, rel=0.1)


def test_without_a_random_start_the_first_look_is_at_the_image(linear, random, inputs):
    model = linear(WEIGHT)
    seen = inputs(model)
    PGD(0.2, steps=1, random_start=False, box=None).attack(model, points(5), random)
    assert torch.equal(seen[1], points(5))


@pytest.mark.parametrize("loss", ["ce", "margin"])
def test_stopping_early_gives_the_same_split_as_the_full_attack(teacher, small_digits, loss):
    images = small_digits.val.pixels(slice(0, 200))
    attack = PGD(eps=16 / 255, step=4 / 255, steps=6, loss=loss)
    full, early = (
        attack.attack(teacher, images, torch.Generator().manual_seed(1), stop_when_flipped=stop)
        for stop in (False, True)
    )
    assert torch.equal(full.flipped, early.flipped)
    assert torch.equal(early.flipped, early.margin < 0)
    assert 0 < full.flipped.sum() < 200
    assert early.evals < full.evals
    assert torch.allclose(full.margin[~full.flipped], early.margin[~early.flipped], atol=1e-5)
    assert (full.margin <= early.margin + 1e-5).all()


@pytest.mark.parametrize("stop", [True, False])
def test_an_image_that_flips_and_flips_back_counts_as_flipped(random, stop):
    hidden, head = nn.Linear(1, 2), nn.Linear(2, 2)  # class 1 where |x - 0.2| < 0.05
    hidden.weight.data, hidden.bias.data = torch.tensor([[1.0], [-1.0]]), torch.tensor([-0.2, 0.2])
    head.weight.data, head.bias.data = torch.tensor([[1.0, 1.0], [0.0, 0.0]]), torch.tensor([0.0, 0.05])
    model = Teacher(FeatureNet(nn.Sequential(nn.Flatten(), hidden, nn.ReLU()), head), (1, 1, 1), 2, [0.0], [1.0])
    attack = PGD(0.5, step=0.12, steps=3, random_start=False)  # 0, 0.12, 0.24, 0.12
    result = attack.attack(model, torch.zeros(1, 1, 1, 1), random, stop_when_flipped=stop)
    assert result.flipped.all()
    assert result.margin.item() == pytest.approx(-0.01, abs=1e-5)


def test_a_start_does_not_depend_on_the_other_images_still_under_attack(teacher, small_digits):
    images = small_digits.val.pixels(slice(0, 50))
    attack = PGD(eps=8 / 255, steps=3)
    first = attack.attack(teacher, images, torch.Generator().manual_seed(1))
    again = attack.attack(teacher, images, torch.Generator().manual_seed(1))
    other = attack.attack(teacher, images, torch.Generator().manual_seed(2))
    assert torch.equal(first.margin, again.margin)
    assert not torch.equal(first.margin, other.margin)


@pytest.mark.parametrize("stop", [True, False])
def test_evals_are_the_images_the_network_saw(teacher, small_digits, random, stop):
    images = small_digits.val.pixels(slice(0, 64))
    before = teacher.evals.total()
    result = PGD(eps=16 / 255, steps=4).attack(teacher, images, random, stop_when_flipped=stop)
    assert result.evals == teacher.evals.total() - before
    assert (result.evals == 64 * 6) is not stop


def test_answers_that_are_known_are_not_asked_for_again(teacher, small_digits):
    images = small_digits.val.pixels(slice(0, 64))
    attack = PGD(eps=16 / 255, steps=4)
    asked = attack.attack(teacher, images, torch.Generator().manual_seed(1))
    told = attack.attack(teacher, images, torch.Generator().manual_seed(1), teacher.predict(images))
    assert torch.equal(asked.flipped, told.flipped) and 0 < told.flipped.sum() < 64
    assert told.evals == asked.evals - 64


def test_all_flipped_at_once_costs_three_looks(linear, random):
    model = linear([[1.0], [-1.0]])
    attack = PGD(1.0, step=1.0, steps=10, random_start=False, box=None)
    result = attack.attack(model, torch.full((7, 1, 1, 1), 0.5), random)
    assert result.flipped.all() and result.evals == 3 * 7  # the image, the start, after the first step


def test_the_model_is_left_as_it_was(small_digits, random, unchanged):
    model = Classifier(cnn_bn((1, 8, 8), 10), (1, 8, 8), 10, [0.3], [0.4]).eval()
    check = unchanged(model)
    images = small_digits.val.pixels(slice(0, 20))
    copy = images.clone()
    result = PGD(eps=8 / 255, steps=3).attack(model, images, random)
    check()
    assert torch.equal(images, copy) and not images.requires_grad
    assert not result.margin.requires_grad
    assert all(p.requires_grad for p in model.parameters())


def test_a_radius_of_zero_flips_nothing(linear, random):
    result = PGD(0.0, steps=3, box=None).attack(linear(WEIGHT), points(20), random)
    assert not result.flipped.any()


def test_a_saturated_softmax_blinds_cross_entropy_but_not_the_margin(linear, random):
    steep = linear([[1e3], [-1e3]])
    x = torch.tensor([0.5, 0.4]).view(2, 1, 1, 1)
    blind = PGD(0.6, steps=5, random_start=False, box=None).attack(steep, x, random)
    assert blind.saturated.all() and blind.dead.all() and not blind.flipped.any()
    seeing = PGD(0.6, steps=5, random_start=False, loss="margin", box=None).attack(steep, x, random)
    assert seeing.saturated.all() and not seeing.dead.any() and seeing.flipped.all()


def test_a_dead_region_is_told_from_a_live_one(random):
    head = nn.Linear(1, 2)
    head.weight.data, head.bias.data = torch.tensor([[-1.0], [0.0]]), torch.tensor([0.5, 0.0])
    net = FeatureNet(nn.Sequential(nn.Flatten(), nn.ReLU()), head)
    model = Teacher(net, (1, 1, 1), 2, [0.0], [1.0])
    x = torch.tensor([-5.0, 0.3]).view(2, 1, 1, 1)
    result = PGD(0.4, steps=4, random_start=False, box=None).attack(model, x, random)
    assert result.dead.tolist() == [True, False]
    assert result.flipped.tolist() == [False, True]
    assert not result.saturated.any()


def test_dropout_in_training_mode_is_found_not_deterministic(linear):
    torch.manual_seed(0)
    body = nn.Sequential(nn.Flatten(), nn.Linear(3, 50), nn.Dropout(0.5))
    model = Classifier(FeatureNet(body, nn.Linear(50, 2)), (1, 3, 1), 2, [0.0], [1.0])
    assert not is_deterministic(model.train(), points(4))
    assert is_deterministic(model.eval(), points(4))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((0.0, 0.0, True), []),
        ((0.01, 0.1, True), []),
        ((0.5, 0.0, True), ["gradient is exactly zero on 50%"]),
        ((0.0, 0.5, True), ["saturated on 50%"]),
        ((0.0, 0.0, False), ["different logits"]),
        ((0.02, 0.2, False), ["different logits", "exactly zero", "loss=margin"]),
    ],
)
def test_warnings_say_what_is_wrong_and_only_that(given, words):
    said = attack_warnings(*given)
    assert len(said) == len(words)
    assert all(word in text for word, text in zip(words, said, strict=True))


@pytest.mark.parametrize(
    "wrong", [{"eps": -0.1}, {"eps": [0.1, -0.1]}, {"step": 0.0}, {"step": -1.0}, {"steps": 0}, {"loss": "l2"}]
)
def test_impossible_numbers_are_refused(wrong):
    with pytest.raises(ValueError):
        PGD(**wrong)
