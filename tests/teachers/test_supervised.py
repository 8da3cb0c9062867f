import pytest
import torch

from dfkd.domains import Images
from dfkd.errors import NonFiniteLoss
from dfkd.evaluate import accuracy
from dfkd.models import Classifier, cnn_bn, mlp
from dfkd.recipe import Recipe
from dfkd.scenarios import none
from dfkd.teachers import Supervised
from dfkd.teachers.base import Batches


def test_training_learns_the_digits_in_a_few_epochs(trained, small_digits, runtime):
    assert accuracy(trained, small_digits.val, runtime) > 92
    assert not trained.training


@pytest.mark.parametrize("augment", ["none", "shift", "crop_flip", "alternating_flip"])
def test_every_epoch_is_logged(tiny_domain, runtime, augment):
    log = []
    kind = Supervised(cnn_bn((1, 8, 8), 3), Recipe(batch_size=8), epochs=3, augment=augment)
    kind.check(none(tiny_domain()))
    kind.train(none(tiny_domain()), runtime, 0, lambda epoch, metrics: log.append((epoch, metrics)))
    assert [epoch for epoch, _ in log] == [0, 1, 2]
    assert set(log[0][1]) == {"loss/id", "val/iacc"}


def test_the_same_seed_trains_the_same_teacher_and_leaves_torchs_seed_alone(tiny_domain, runtime):
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(0)
        kind = Supervised(mlp((1, 8, 8), 3), Recipe(batch_size=8), epochs=2, augment="shift")
        state = torch.random.get_rng_state()
        model = kind.train(none(tiny_domain()), runtime, seed, lambda epoch, metrics: None)
        assert torch.equal(torch.random.get_rng_state(), state)
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def test_a_set_smaller_than_the_batch_is_one_batch(tiny_domain, runtime):
    kind = Supervised(mlp((1, 8, 8), 3), Recipe(batch_size=1000), epochs=2)
    kind.train(none(tiny_domain()), runtime, 0, lambda epoch, metrics: None)


def test_a_non_finite_loss_is_named(tiny_domain, runtime):
    kind = Supervised(mlp((1, 8, 8), 3), Recipe(lr=1e38, batch_size=8, schedule="constant"), epochs=3)
    with pytest.raises(NonFiniteLoss, match="'id'"):
        kind.train(none(tiny_domain()), runtime, 0, lambda epoch, metrics: None)


def test_impossible_options_are_refused():
    for wrong in ({"epochs": 0}, {"epochs": 1, "augment": "mixup"}, {"epochs": 1, "label_smoothing": 1.0}):
        with pytest.raises(ValueError):
            Supervised(mlp((1, 8, 8), 3), Recipe(), **wrong)


def test_alternating_flip_shows_either_side_of_every_image_in_two_epochs(tiny_domain, runtime):
    kind = Supervised(mlp((1, 8, 8), 3), Recipe(batch_size=8), epochs=1, augment="alternating_flip")
    batches = Batches(kind, none(tiny_domain()), runtime, 0)
    seen = []
    for _ in range(3):
        batches.shuffle()
        seen.append(batches.mirrored)
    assert torch.equal(seen[0], ~seen[1]) and torch.equal(seen[0], seen[2])
    assert 0 < seen[0].float().mean() < 1


def test_alternating_flip_mirrors_the_images_it_says(tiny_domain, runtime):
    domain = tiny_domain()
    kind = Supervised(mlp((1, 8, 8), 3), Recipe(batch_size=8), epochs=1, augment="alternating_flip")
    batches = Batches(kind, none(domain), runtime, 0)
    batches.train.x[...] = torch.linspace(0.1, 0.9, 8)  # brighter to the right
    batches.shuffle()
    views = batches.take(0)[0].x
    falls = views[:, 0, 4, 3] > views[:, 0, 4, 4]  # the middle, which no shift by one pixel takes to the border
    assert torch.equal(falls, batches.mirrored[batches.order[:8]])


def test_label_smoothing_spreads_a_share_of_the_target(small_digits, runtime):
    batch = small_digits.train.take(slice(0, 4)).to(runtime.device)
    batch = Images(batch.x.float(), batch.y)
    kind = Supervised(cnn_bn(small_digits.shape, 10), Recipe(), epochs=1, label_smoothing=0.2)
    model = Classifier(kind.network, small_digits.shape, 10, small_digits.mean, small_digits.std).eval()
    target = 0.8 * torch.nn.functional.one_hot(batch.y, 10) + 0.02
    expected = -(target * model(batch.x).log_softmax(1)).sum(1).mean()
    assert kind.loss(model, batch, None, None)["id"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_fast_recipe_learns_at_least_as_much_as_the_ordinary_one_in_the_same_few_epochs(small_digits, runtime):
    def learned(recipe: Recipe, **options) -> float:
        kind = Supervised(cnn_bn(small_digits.shape, 10, widths=(8, 16, 16)), recipe, epochs=4, **options)
        return accuracy(kind.train(none(small_digits), runtime, 0, lambda *_: None), small_digits.val, runtime)

    fast = Recipe(lr=0.4, nesterov=True, schedule="triangular", batch_size=64)
    assert learned(fast, label_smoothing=0.2) >= learned(Recipe(batch_size=64)) - 2
