import pytest
import torch

from dfkd.errors import NonFiniteLoss
from dfkd.evaluate import accuracy
from dfkd.models import cnn_bn, mlp
from dfkd.recipe import Recipe
from dfkd.scenarios import none
from dfkd.teachers import Supervised


def test_training_learns_the_digits_in_a_few_epochs(trained, small_digits, runtime):
    assert accuracy(trained, small_digits.val, runtime) > 92
    assert not trained.training


@pytest.mark.parametrize("augment", ["none", "shift", "crop_flip"])
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
    for wrong in ({"epochs": 0}, {"epochs": 1, "augment": "mixup"}):
        with pytest.raises(ValueError):
            Supervised(mlp((1, 8, 8), 3), Recipe(), **wrong)
