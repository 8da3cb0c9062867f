"""Weights that no working network has are named and refused; so are outputs that are no logits."""

import pytest
import torch
from torch import nn

from dfkd.errors import ConfigError
from dfkd.models import Classifier, broken_weights, check_training_mode, cnn_bn, load_weights

SHAPE = (1, 8, 8)


def network() -> nn.Module:
    torch.manual_seed(0)
    return cnn_bn(SHAPE, 3, widths=(4,))


OWN = network().state_dict()
WEIGHT, VARIANCE = "head.weight", next(key for key in OWN if key.endswith("running_var"))


def with_one(value: float):
    """Change one number of a tensor."""

    def change(tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.clone()
        tensor.view(-1)[1] = value
        return tensor

    return change


@pytest.mark.parametrize(
    ("key", "change", "said"),
    [
        (WEIGHT, with_one(torch.nan), "has 1 NaN or infinite values of 192"),
        (WEIGHT, with_one(torch.inf), "has 1 NaN or infinite values"),
        (WEIGHT, with_one(-torch.inf), "has 1 NaN or infinite values"),
        (WEIGHT, lambda x: x.double() * 1e300, "NaN or infinite"),  # finite only in double precision
        (WEIGHT, lambda x: with_one(torch.nan)(x).half(), "NaN or infinite"),
        ("head.bias", lambda x: torch.full_like(x, torch.nan), "has 3 NaN or infinite values of 3"),
        (VARIANCE, with_one(-0.5), "has the negative variance -0.5"),
        (VARIANCE, with_one(torch.nan), "NaN or infinite"),
        (VARIANCE.replace("var", "mean"), with_one(torch.inf), "NaN or infinite"),
        (WEIGHT, lambda x: (x * 100).to(torch.int8), "is of torch.int8: quantised"),
        (WEIGHT, lambda x: x.long(), "is of torch.int64: quantised"),
        (WEIGHT, lambda x: x > 0, "is of torch.bool"),
        (WEIGHT, lambda x: x.to(torch.complex64), "is complex"),
        (WEIGHT, lambda x: x.to_sparse(), r"is sparse: save it with to_dense\(\)"),
        (WEIGHT, lambda x: x.to("meta"), "has a shape but no values"),
    ],
)  # fmt: skip
def test_a_broken_tensor_is_named_and_the_weights_are_refused(key, change, said):
    net = network()
    with pytest.raises(ConfigError, match=rf"weights in teacher\.pt are broken: {key} .*{said}"):
        load_weights(net, OWN | {key: change(OWN[key])}, "teacher.pt")
    assert all(torch.equal(value, OWN[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn])
def test_floating_point_numbers_of_every_width_are_taken(dtype):
    weights = {key: value.to(dtype) if value.is_floating_point() else value for key, value in OWN.items()}
    load_weights(network(), weights, "teacher.pt")


def test_counters_may_be_of_any_type():
    counter = next(key for key in OWN if key.endswith("num_batches_tracked"))
    for value in (torch.tensor(-1), torch.tensor(3.0), torch.tensor(7, dtype=torch.int32)):
        assert broken_weights(OWN | {counter: value}, OWN) is None


class Ending(nn.Module):
    """A network whose logits go through a function, which is told whether it is in training mode."""

    def __init__(self, how):
        super().__init__()
        self.net, self.how = network(), how

    def forward(self, x):
        return self.how(self.net(x), self.training)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (lambda y, _: (y, y), "returns a tuple; it must return the logits alone"),
        (lambda y, _: [y], "returns a list"),
        (lambda y, _: {"logits": y}, "returns a dict"),
        (lambda y, _: None, "returns a NoneType"),
        (lambda y, _: y.softmax(1), "outputs are probabilities.*ends in a softmax; leave that out"),
        (lambda y, _: y[:, :, None, None], r"outputs of shape \(2, 3, 1, 1\) for 2 images"),
        (lambda y, _: y.flatten(), r"outputs of shape \(6,\)"),
        (lambda y, _: y.mean(), r"outputs of shape \(\)"),
        (lambda y, _: y[:1], r"outputs of shape \(1, 3\)"),
        (lambda y, _: y / 0, "NaN or infinite logits for 1x8x8 images"),
        (lambda y, _: y[:, :2], "gives 2 logits, but there are 3 classes"),
    ],
)
def test_outputs_that_are_no_logits_are_told(how, said):
    with pytest.raises(ValueError, match=said):
        Classifier(Ending(how), SHAPE, 3, [0.5], [0.5])


@pytest.mark.parametrize("how", [lambda y, _: y, lambda y, _: y.log_softmax(1), lambda y, _: y.sigmoid()])
def test_other_endings_are_taken(how):
    Classifier(Ending(how), SHAPE, 3, [0.5], [0.5])


def test_what_is_returned_in_training_mode_alone_is_told_and_the_network_is_unchanged(unchanged):
    net = Ending(lambda y, training: (y, y) if training else y)
    check = unchanged(net)
    Classifier(net, SHAPE, 3, [0.5], [0.5])
    with pytest.raises(ValueError, match="returns a tuple in training mode"):
        check_training_mode(net, SHAPE)
    check()
    assert net.training and all(value.device.type == "cpu" for value in net.state_dict().values())


def test_random_numbers_of_a_network_in_training_mode_are_not_used_up():
    before = torch.get_rng_state()
    check_training_mode(Ending(lambda y, _: nn.functional.dropout(y) + torch.rand(2, 3).mean().item()), SHAPE)
    assert torch.equal(torch.get_rng_state(), before)


def fail(*_):
    raise AssertionError


@pytest.mark.parametrize("how", [lambda y, _: y, lambda y, _: y + y.sum().item(), lambda y, _: y + torch.ones(1), fail])
def test_a_network_that_returns_logits_or_fails_there_is_not_refused(how):
    check_training_mode(Ending(how), SHAPE)


def test_an_error_without_words_is_named_by_its_kind():
    with pytest.raises(ValueError, match="cannot take 1x8x8 images: AssertionError"):
        Classifier(Ending(fail), SHAPE, 3, [0.5], [0.5])
