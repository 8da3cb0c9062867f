"""The statistics of the studies against numbers that are known otherwise."""

import itertools
import math

import numpy as np
import pytest
from studies.statistics import analysis_of_variance, holm, p_text, paired, t_interval
from studies.weights import response_surface


def test_the_interval_of_three_values_is_that_of_the_table_of_t():
    found = t_interval([1.0, 2.0, 3.0])
    assert (found.mean, found.n) == (2.0, 3)
    assert found.high - found.mean == pytest.approx(4.302653 / 3**0.5, abs=1e-5)  # t(0.975, 2), s = 1
    t = 2 * 3**0.5  # with two degrees of freedom p = 1 - t / sqrt(2 + t^2)
    assert found.p == pytest.approx(1 - t / (2 + t**2) ** 0.5, abs=1e-9)
    assert str(found) == "+2.0 (-0.5 to +4.5)"


def test_the_p_value_with_one_degree_of_freedom_is_that_of_a_cauchy_distribution():
    found = t_interval([1.0, 3.0])  # t = 2 / (sqrt(2) / sqrt(2)) = 2
    assert found.p == pytest.approx(1 - 2 * math.atan(2) / math.pi, abs=1e-9)


def test_one_value_has_no_interval_and_equal_ones_have_no_test():
    alone = t_interval([5.0])
    assert math.isnan(alone.low) and math.isnan(alone.p) and str(alone) == "+5.0" and p_text(alone.p) == "-"
    equal = t_interval([2.0, 2.0])
    assert (equal.low, equal.high) == (2.0, 2.0) and math.isnan(equal.p)
    assert math.isnan(t_interval([0.1 + 0.2, 0.3]).p), "sums of the same numbers in another order are equal, too"


def test_only_seeds_of_both_groups_are_paired():
    assert paired({0: 3.0, 1: 5.0, 7: 99.0}, {0: 1.0, 1: 1.0, 2: 50.0}).mean == 3.0
    with pytest.raises(ValueError, match="no seed has finished in both"):
        paired({0: 1.0}, {1: 1.0})


def test_holm_steps_down_and_leaves_out_what_is_no_test():
    assert holm([0.01, 0.04, 0.03, float("nan")])[:3] == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert math.isnan(holm([float("nan")])[0])


def design(effect) -> tuple[dict[str, list[bool]], list[int], list[float]]:
    """Three factors, three seeds; `effect(a, b, c)` of codes -1 and 1, seeds that differ by 10, and noise."""
    rows = [(seed, *codes) for seed in range(3) for codes in itertools.product((-1, 1), repeat=3)]
    on = {name: [row[i + 1] > 0 for row in rows] for i, name in enumerate("abc")}
    noise = [(0.1 if seed == 0 else -0.05) * a * b * c for seed, a, b, c in rows]
    values = [10 * seed + effect(a, b, c) + e for (seed, a, b, c), e in zip(rows, noise, strict=True)]
    return on, [row[0] for row in rows], values


def test_the_analysis_of_variance_finds_the_effects_that_were_put_in():
    found, freedom = analysis_of_variance(*design(lambda a, b, c: 3 * a + 2 * a * b))
    assert freedom == 24 - 3 - 6
    assert found["a"].size == pytest.approx(6.0) and found["a x b"].size == pytest.approx(4.0)
    assert found["a"].share == pytest.approx(9 / 13, abs=1e-3) and found["a x b"].share == pytest.approx(
        4 / 13, abs=1e-3
    )
    assert found["a"].p < 1e-10 and found["c"].size == pytest.approx(0, abs=1e-9) and found["c"].p > 0.9


def test_an_incomplete_design_is_refused():
    on, seeds, values = design(lambda a, b, c: a)
    with pytest.raises(ValueError, match="not every combination of a, b, c"):
        analysis_of_variance({name: column[:-1] for name, column in on.items()}, seeds[:-1], values[:-1])


def test_cells_that_do_not_determine_a_response_surface_are_refused():
    levels = np.array([[a, b] for a in (-1, 0, 1) for b in (-1, 0)], dtype=float)  # no cell has a high b
    with pytest.raises(ValueError, match="6 cells do not determine a response surface of 6 coefficients"):
        response_surface(levels, np.arange(6.0), ["a", "b"])


def test_the_response_surface_is_the_polynomial_that_was_put_in():
    levels = np.array(list(itertools.product((-1, 0, 1), repeat=2)) * 2, dtype=float)
    noise = np.tile([1.0, -1.0], 9) * 1e-3
    y = 5 + 2 * levels[:, 0] - 3 * levels[:, 1] ** 2 + levels[:, 0] * levels[:, 1] + noise
    terms, explained = response_surface(levels, y, ["a", "b"])
    found = {name: b for name, b, _ in terms}
    assert found == pytest.approx({"a": 2, "b": 0, "a²": 0, "b²": -3, "a x b": 1}, abs=1e-2) and explained > 0.999
