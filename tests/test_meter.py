import pytest
import torch

from dfkd.errors import NonFiniteLoss
from dfkd.training.meter import WAITING, Meter


def test_means_since_the_last_reading():
    meter = Meter()
    meter.add({"a": torch.tensor(1.0), "b": torch.tensor(5.0)})
    meter.add({"a": torch.tensor(3.0)})
    assert meter.read() == {"a": 2.0, "b": 5.0}
    meter.add({"a": torch.tensor(7.0)})
    assert meter.read() == {"a": 7.0}
    assert meter.read() == {}


def test_terms_that_come_in_other_company_are_added_up():
    meter = Meter()
    for names in ("ab", "ba", "a", "", "cb"):
        meter.add({name: torch.tensor(float(ord(name) + len(names))) for name in names})
    assert meter.read() == pytest.approx({"a": 97 + 5 / 3, "b": 98 + 2, "c": 99 + 2})
    assert meter.steps == 5


def test_the_graph_is_dropped():
    meter, x = Meter(), torch.ones(1, requires_grad=True)
    meter.add({"a": (2 * x).sum()})
    (waiting,) = meter.waiting["a",]
    assert not waiting.requires_grad


def test_the_values_of_a_step_stay_when_its_tensors_get_new_ones():
    """As those of a CUDA graph do."""
    meter, term = Meter(), torch.tensor(1.0)
    for value in range(WAITING + 3):
        meter.add({"a": term.fill_(value)})
    assert meter.read() == {"a": pytest.approx((WAITING + 2) / 2)}


@pytest.mark.parametrize("bad", [3, WAITING - 1, WAITING, WAITING + 3])
def test_the_first_step_that_was_not_finite_is_named_wherever_it_is(bad):
    meter = Meter()
    for step in range(WAITING + 5):
        meter.add({"a": torch.tensor(1.0 if step < bad else float("nan")), "b": torch.tensor(1.0)})
    with pytest.raises(NonFiniteLoss, match="'a'") as caught:
        meter.read()
    assert caught.value.step == bad + 1


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


def test_a_term_of_another_shape_is_refused():
    with pytest.raises(RuntimeError, match="invalid for input of size 3"):
        Meter().add({"a": torch.ones(3)})


def test_a_part_is_taken_with_what_was_there():
    several, mine = Meter((2,)), Meter()
    mine.add({"a": torch.tensor(1.0)})
    several.add({"a": torch.tensor([5.0, 9.0]), "b": torch.tensor([2.0, float("nan")])})
    mine.take(several, 0)
    assert mine.read() == {"a": 3.0, "b": 2.0}
    other = Meter()
    other.take(several, 1)
    with pytest.raises(NonFiniteLoss, match="'b' is not finite at step 1"):
        other.read()
