"""From looks to a verdict."""

import dataclasses
import json
import math
import statistics

import pytest
from by_hand import TARGET

from dfkd.audit import Looks, headline, judge
from dfkd.audit.signals import SIGNALS, signals
from dfkd.audit.verdict import probability, shipped_model, split_radius, suspicion


def looks(**changed) -> Looks:
    """Looks at an ordinary teacher of four classes, of which some values are changed."""
    values = {
        "marks": [-5.0, -5.2, -4.8, -5.1],
        "mark_success": [0.0, 0.0, 0.05, 0.0],
        "shifts": [-2.0, -1.8, -2.1, -2.2],
        "masks": [30.0, 28.0, 33.0, 31.0],
        "scouts": [0.1, 0.0, 0.05, 0.0],
        "margins": [20.0, 22.0, 21.0, 19.0],
        "flips": [-4.0, -4.1, -3.9, -4.0],
        "last_layer": [5.0, 5.1, 4.9, 5.0],
    }
    radii, labels = [4 / 255, 8 / 255] * 4, [0, 0, 1, 1, 2, 2, 3, 3]
    return Looks(values | changed, scale=5.0, hit=1.0, radii=radii, labels=labels)


def test_signals_do_not_depend_on_the_units_of_the_network():
    plain = signals(looks())
    loud = looks(marks=[10 * v for v in looks().values["marks"]], masks=[7 * v for v in looks().values["masks"]])
    loud = dataclasses.replace(loud, scale=50.0)
    assert signals(loud)["marks"] == pytest.approx(plain["marks"])
    assert signals(loud)["masks"] == pytest.approx(plain["masks"])
    others = statistics.mean([-5.2, -4.8, -5.1]) / 5, statistics.pstdev([-5.2, -4.8, -5.1]) / 5
    assert plain["marks"][0] == pytest.approx((-1 - others[0]) / math.hypot(others[1], 0.15))


def test_a_margin_below_zero_does_not_make_the_others_stand_out():
    assert max(signals(looks(margins=[20.0, 22.0, 21.0, -3.0]))["margins"]) < 1


def test_an_ordinary_teacher_is_not_trapped():
    verdict = judge(looks())
    assert verdict.answer == "not trapped" and verdict.kind is None
    assert "defense=none" in verdict.advice and "Nothing unusual" in headline(verdict)
    assert not any(reason.speaks_for for reason in verdict.reasons)


@pytest.mark.parametrize(
    ("changed", "kind"),
    [
        ({"marks": [-5.0, 6.0, -4.8, -5.1], "mark_success": [0, 1, 0, 0], "masks": [30.0, 4.0, 33.0, 31.0]}, "mark"),
        ({"shifts": [-2.0, 12.0, -2.1, -2.2], "masks": [30.0, 4.0, 33.0, 31.0], "margins": [20, 60, 21, 19]},
         "pattern"),
        ({"scouts": [0, 0.9, 0, 0], "flips": [-4.0, 0, -3.9, -4.0], "shifts": [-2.0, 12.0, -2.1, -2.2],
          "margins": [20, 90, 21, 19]}, "outside"),
    ],
)  # fmt: skip
def test_a_class_that_stands_out_in_several_looks_is_named_with_the_kind_of_trap(changed, kind):
    verdict = judge(looks(**changed))
    assert verdict.answer == "trapped" and verdict.suspect == 1 and verdict.kind == kind
    assert verdict.reasons[0].speaks_for
    assert "attack.eps=8/255" in verdict.advice and "class 1" in verdict.advice


def test_between_both_it_cannot_tell():
    verdict = judge(looks(), shipped_model() | {"slope": 0.0, "bias": 0.0})
    assert verdict.probability == 0.5 and verdict.answer == "cannot tell" and verdict.kind is None
    assert "cannot tell" in headline(verdict) and "defense=none" in verdict.advice


def test_of_two_classes_none_can_stand_out():
    seen = looks()
    of_two = {name: values[:2] for name, values in seen.values.items()}
    assert judge(dataclasses.replace(seen, values=of_two)).answer == "cannot tell"


def test_no_look_decides_alone():
    model, loud = shipped_model(), looks(marks=[-5.0, 1e9, -4.8, -5.1])
    assert suspicion(loud, model)[1] <= suspicion(looks(), model)[1] + model["cap"]
    assert judge(loud).answer != "trapped"


def test_more_suspicion_never_lowers_the_probability():
    model = shipped_model()
    assert model["slope"] > 0 and all(weight >= 0 for weight in model["weight"].values())
    assert 0 < probability(0, model) < probability(10, model) < probability(20, model) <= probability(40, model) <= 1


def test_the_shipped_model_names_every_look_and_says_how_it_was_made():
    model = shipped_model()
    for part in ("weight", "usual"):
        assert set(model[part]) == set(SIGNALS)
    assert model["made"]


def test_the_split_is_made_where_nearly_all_images_of_other_classes_flip():
    assert split_radius(looks(), suspect=1) == 8 / 255
    radii = [2 / 255] * 2 + [1.0] * 2 + [2 / 255] * 4  # only images of the suspect do not flip
    assert split_radius(dataclasses.replace(looks(), radii=radii), suspect=1) == 2 / 255


def test_the_verdict_is_json():
    assert json.loads(json.dumps(judge(looks()).to_json()))["suspect"] in range(4)


def test_the_trap_by_hand_is_found_and_its_twin_is_not(looks_at):
    trapped, clean = judge(looks_at(True)), judge(looks_at(False))
    assert trapped.suspect == TARGET and trapped.answer != "not trapped"
    assert clean.probability < 0.5 * trapped.probability
