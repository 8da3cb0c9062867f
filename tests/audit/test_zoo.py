"""The zoo of the study, and the scores of the study."""

import sys
from collections import Counter
from pathlib import Path

import pytest
from runner import ROOT, composed

sys.path.insert(0, str(ROOT / "scripts" / "audit"))
import scores
import zoo


def test_half_of_the_zoo_are_clean_twins_that_share_everything_with_a_trapped_teacher():
    members = zoo.members()
    assert len(members) >= 300
    for trapped, twin in zip(members[::2], members[1::2], strict=True):
        assert trapped.trapped and not twin.trapped
        assert (trapped.seed, trapped.network, trapped.domain) == (twin.seed, twin.network, twin.domain)
    assert max(Counter(member.seed for member in members).values()) == 2


def test_it_has_every_network_trigger_and_method():
    members = zoo.members()
    assert {member.network for member in members} == set(zoo.NETWORKS) and len(zoo.NETWORKS) >= 6
    assert {member.trap for member in members} == {*zoo.TRIGGERS, *zoo.METHODS, "sophon"}
    assert {member.rate for member in members} == {None, *zoo.RATES}
    assert {member.domain for member in members} == set(zoo.DOMAINS)


def test_the_twin_of_sophon_makes_the_same_steps_and_learns_no_trap():
    trapped, twin = (member for member in zoo.members() if member.trap == "sophon" and member.network == "cnn")
    ours, theirs = (composed(*member.overrides(Path("data"), Path("outputs"))).teacher for member in (trapped, twin))
    assert ours._target_ == theirs._target_ and theirs.name == "clean_twin"
    different = {key for key in ours if ours[key] != theirs[key]}
    assert different == {"name", "suppress_lr"} and theirs.suppress_lr < 1e-9


@pytest.mark.parametrize("kind", ["backdoor", "close_set", "open_set"])
def test_a_pair_differs_in_its_teacher_only(kind):
    trapped = next(member for member in zoo.members() if member.kind == kind)
    twin = next(m for m in zoo.members() if m.seed == trapped.seed and not m.trapped)
    ours, theirs = (composed(*member.overrides(Path("data"), Path("outputs"))) for member in (trapped, twin))
    assert ours.ntl_scenario == theirs.ntl_scenario and ours.data == theirs.data
    assert theirs.teacher.name == "clean_twin"
    for option in ("epochs", "augment", "network"):
        assert ours.teacher[option] == theirs.teacher[option]
    assert {**ours.teacher.recipe, "name": None} == {**theirs.teacher.recipe, "name": None}


def test_the_area_under_the_curve_counts_pairs():
    assert scores.auroc([3, 4], [1, 2]) == 1
    assert scores.auroc([1, 3], [2, 2]) == 0.5
    assert scores.auroc([2], [2]) == 0.5
    low, high = scores.interval([3, 4, 5, 2.5], [1, 2, 3, 2])
    assert low <= scores.auroc([3, 4, 5, 2.5], [1, 2, 3, 2]) <= high


def test_false_alarms_are_not_more_than_allowed():
    clean = list(range(100))
    assert scores.caught([99.5, 98.5, 94.5, 0], clean, 0.01) == 0.5  # one clean teacher may lie above
    assert scores.caught([99.5, 98.5, 94.5, 0], clean, 0.05) == 0.75
    assert scores.caught([99.5], [99.0], 0.01) == 1


def test_the_calibration_error_weighs_bins_by_their_teachers():
    error, rows = scores.calibration([0.1, 0.1, 0.9, 0.9], [False, False, True, False])
    assert rows == [(pytest.approx(0.1), 0, 2), (pytest.approx(0.9), 0.5, 2)]
    assert error == pytest.approx((2 * 0.1 + 2 * 0.4) / 4)
