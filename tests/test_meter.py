import pytest
import torch

from dfkd.errors import NonFiniteLoss
from dfkd.meter import Meter


def test_means_since_the_last_reading():
    meter = Meter()
    meter.add({"a": torch.tensor(1.0), "b": torch.tensor(5.0)})
    meter.add({"a": torch.tensor(3.0)})
    assert meter.read() == {"a": 2.0, "b": 5.0}
    meter.add({"a": torch.tensor(7.0)})
    assert meter.read() == {"a": 7.0}
    assert meter.read() == {}


def test_the_graph_is_dropped():
    meter, x = Meter(), torch.ones(1, requires_grad=True)
    meter.add({"a": (2 * x).sum()})
    assert not meter.sums["a"].requires_grad


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_term_that_was_not_finite_once_is_named(bad):
    meter = Meter()
    for value in (1.0, bad, 1.0):
        meter.add({"fine": torch.tensor(1.0), "broken": torch.tensor(value)})
    with pytest.raises(NonFiniteLoss, match="'broken'") as caught:
        meter.read()
    assert caught.value.term == "broken"
    assert caught.value.step == 3


def test_opposite_infinities_do_not_cancel():
    meter = Meter()
    meter.add({"a": torch.tensor(float("inf"))})
    meter.add({"a": torch.tensor(float("-inf"))})
    with pytest.raises(NonFiniteLoss):
        meter.read()
