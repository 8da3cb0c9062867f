import pytest

from dfkd.noise import Noise


@pytest.mark.parametrize(
    ("schedule", "t", "total", "expected"),
    [
        ("linear", 0, 4, 1e-1),
        ("linear", 1, 4, 1e-2),
        ("linear", 3, 4, 1e-4),
        ("cosine", 0, 4, 1e-1),
        ("cosine", 2, 4, 1e-3),
        ("cosine", 1, 3, 1e-2),  # cos(pi / 3) = 1/2: a quarter of the way
        ("cosine", 2, 3, 1e-4),
        ("constant", 3, 4, 1e-1),
    ],
)
def test_schedules_equal_hand_values(schedule, t, total, expected):
    assert Noise(schedule, eps=0.1, decades=4).step_size(t, total) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_the_end_value_is_approached_but_not_reached(schedule):
    noise = Noise(schedule, eps=0.1, decades=4)
    assert 1e-5 < noise.step_size(99, 100) < 1.1e-5


def test_none_has_no_step_size():
    assert Noise("none").step_size(0, 10) is None


@pytest.mark.parametrize(
    "wrong",
    [{"schedule": "step"}, {"eps": 0.0}, {"eps": -0.1}, {"decades": -1}, {"schedule": "none", "langevin": True}],
)
def test_impossible_values_are_refused(wrong):
    with pytest.raises(ValueError):
        Noise(**wrong)
