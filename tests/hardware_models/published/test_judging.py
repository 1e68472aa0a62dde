"""What is said of predictions: known answers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kneepoint.hardware_models.published.judging import Pair, judge, kendall_in_band, standard_error


def test_known_answers() -> None:
    judged = judge([Pair(100, 105, 0.1), Pair(100, 120, 0.1), Pair(200, 150, 0.2)])
    assert judged.rows == 3
    assert judged.within_10 == pytest.approx(1 / 3)
    assert judged.mape == pytest.approx((0.05 + 0.2 + 0.25) / 3)
    assert judged.median == pytest.approx(0.05)
    assert judged.worst == pytest.approx(-0.25)
    assert judged.inside_one == pytest.approx(1 / 3)  # the logarithms of 1.05, 1.2 and 0.75 are 0.05, 0.18 and -0.29
    assert judged.inside_two == 1.0


def test_nothing_to_judge_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing to judge"):
        judge([])


def test_ranks_count_among_networks_that_take_about_as_long() -> None:
    sorted_far = [Pair(1, 1), Pair(10, 10), Pair(100, 100)]
    assert kendall_in_band(sorted_far) is None
    near = [Pair(10, 3), Pair(11, 2), Pair(12, 1)]
    assert kendall_in_band(near) == -1
    assert kendall_in_band([Pair(10, 1), Pair(11, 2), Pair(12, 3)]) == 1


def test_without_stated_errors_nothing_is_said_of_them() -> None:
    assert judge([Pair(1, 1)]).inside_one is None


@given(st.integers(0, 2**31))
def test_a_standard_error_of_normal_errors_is_theirs(seed: int) -> None:
    errors = np.random.default_rng(seed).normal(0, 0.2, 4000)
    assert standard_error(errors.tolist()) == pytest.approx(0.2, rel=0.12)


def test_tails_widen_a_standard_error() -> None:
    assert standard_error([0.1] * 90 + [1.0] * 10) == pytest.approx(0.5, rel=0.01)
