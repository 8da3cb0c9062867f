"""From looks to a verdict."""

import dataclasses
import json
import math
import statistics

import pytest
from by_hand import TARGET

from dfkd.audit import Looks, headline, judge
from dfkd.audit.signals import SIGNALS, signals
from dfkd.audit.verdict import CERTAIN, LIMITS, probability, shipped_model, split_radius, suspicion


def looks(**changed) -> Looks:
    """Looks at an ordinary teacher of four classes, of which some values are changed."""
    values = {
        "marks": [20.0, 21.0, 19.0, 18.0],
        "shifts": [0.10, 0.11, 0.12, 0.10],
        "masks": [30.0, 28.0, 33.0, 31.0],
        "scouts": [0.1, 0.0, 0.05, 0.0],
        "margins": [20.0, 22.0, 21.0, 19.0],
        "flips": [-4.0, -4.1, -3.9, -4.0],
        "last_layer": [5.0, 5.1, 4.9, 5.0],
    }
    radii, labels = [4 / 255, 8 / 255] * 4, [0, 0, 1, 1, 2, 2, 3, 3]
    return Looks(values | changed, hit=1.0, confidence=0.6, radii=radii, labels=labels)


def test_signals_do_not_depend_on_the_units_of_the_network():
    plain = signals(looks())
    scaled = ("marks", "masks", "margins", "last_layer")
    loud = looks(**{name: [10 * value for value in looks().values[name]] for name in scaled})
    for name in scaled:
        assert signals(loud)[name] == pytest.approx(plain[name])
    own, *others = (math.log(19.5 / value) for value in looks().values["marks"])
    wanted = (own - statistics.mean(others)) / math.hypot(statistics.pstdev(others), 0.2)
    assert plain["marks"][0] == pytest.approx(wanted)


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
        ({"marks": [20.0, 2.0, 19.0, 18.0], "masks": [30.0, 4.0, 33.0, 31.0], "last_layer": [5, 9, 4.9, 5]}, "mark"),
        ({"shifts": [0.1, 0.01, 0.12, 0.1], "masks": [30.0, 15.0, 33.0, 31.0], "last_layer": [5, 9, 4.9, 5],
          "margins": [20, 60, 21, 19]}, "pattern"),
        ({"scouts": [0, 0.9, 0, 0], "flips": [-4.0, 0, -3.9, -4.0], "shifts": [0.1, 0.01, 0.12, 0.1],
          "masks": [30.0, 4.0, 33.0, 31.0], "margins": [20, 90, 21, 19], "last_layer": [5, 9, 4.9, 5]}, "outside"),
    ],
)  # fmt: skip
def test_a_class_that_stands_out_in_several_looks_is_named_with_the_kind_of_trap(changed, kind):
    verdict = judge(looks(**changed))
    assert verdict.answer == "trapped" and verdict.suspect == 1 and verdict.kind == kind
    assert verdict.reasons[0].speaks_for
    assert "attack.eps=8/255" in verdict.advice and "class 1" in verdict.advice


def test_a_teacher_that_is_unsure_outside_of_its_domain_is_told_as_such():
    unsure = judge(dataclasses.replace(looks(), confidence=0.2), shipped_model() | {"least_confidence": 0.4})
    assert unsure.answer == "not trapped"
    assert "20 % on average" in headline(unsure) and "below 40 %" in headline(unsure)
    assert judge(looks(), shipped_model() | {"least_confidence": 0.4}).remark is None


def test_between_both_it_cannot_tell():
    verdict = judge(looks(), shipped_model() | {"weight": dict.fromkeys(SIGNALS, 0.0), "bias": 0.0})
    assert verdict.probability == 0.5 and verdict.answer == "cannot tell" and verdict.kind is None
    assert "cannot tell" in headline(verdict) and "defense=none" in verdict.advice


def test_of_two_classes_none_can_stand_out():
    seen = looks()
    of_two = {name: values[:2] for name, values in seen.values.items()}
    assert judge(dataclasses.replace(seen, values=of_two)).answer == "cannot tell"


def test_no_look_decides_alone():
    model, loud = shipped_model(), looks(marks=[20.0, 1e-9, 19.0, 18.0])
    assert suspicion(loud, model)[1] <= suspicion(looks(), model)[1] + LIMITS[1] * model["weight"]["marks"]
    assert judge(loud).answer != "trapped"


def test_more_suspicion_never_lowers_the_probability():
    model = shipped_model()
    assert all(weight >= 0 for weight in model["weight"].values())
    chances = [probability(total, model) for total in (0, -model["bias"] - 1, -model["bias"] + 1, 1e6)]
    assert chances == sorted(chances) and chances[0] == pytest.approx(1 - CERTAIN, abs=0.05) and chances[-1] == CERTAIN


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
