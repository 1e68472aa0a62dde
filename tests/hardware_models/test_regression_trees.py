from __future__ import annotations

import numpy as np
import pytest

from kneepoint.hardware_models.regression_trees import RegressionTrees

# x0 <= 1 ? (x1 <= 2 ? 10 : 20) : (x1 <= 5 ? 30 : 40)
ONE = RegressionTrees(
    np.array([[0, 1, 1]], np.uint8),
    np.array([[1.0, 2.0, 5.0]], np.float32),
    np.array([[10.0, 20.0, 30.0, 40.0]], np.float32),
)


def test_rows_go_left_up_to_the_threshold_and_right_beyond() -> None:
    rows = np.array([[1, 2], [1, 2.1], [1.1, 5], [2, 6]], np.float32)
    assert ONE.predict(rows).tolist() == [10, 20, 30, 40]


def test_trees_add_up() -> None:
    two = RegressionTrees(*(np.concatenate([array, array]) for array in (ONE.feature, ONE.threshold, ONE.value)))
    assert two.predict(np.array([[0, 0], [9, 9]], np.float32)).tolist() == [20, 80]
    assert two.depth == 2


def test_a_threshold_of_infinity_never_lets_anything_right() -> None:
    left = RegressionTrees(ONE.feature, np.full((1, 3), np.inf, np.float32), ONE.value)
    assert left.predict(np.array([[1e30, 1e30]], np.float32)).tolist() == [10]


def test_no_rows_give_no_values() -> None:
    assert ONE.predict(np.zeros((0, 2), np.float32)).shape == (0,)


def test_arrays_come_back_by_their_prefix() -> None:
    again = RegressionTrees.of(ONE.arrays("3"), "3")
    assert again is not None
    rows = np.random.default_rng(0).uniform(0, 8, (50, 2)).astype(np.float32)
    assert np.array_equal(again.predict(rows), ONE.predict(rows))
    assert RegressionTrees.of(ONE.arrays("3"), "4") is None


@pytest.mark.parametrize("nodes", [2, 4])
def test_incomplete_trees_are_refused(nodes: int) -> None:
    with pytest.raises(ValueError, match=r"n = 2\^d - 1"):
        RegressionTrees(
            np.zeros((1, nodes), np.uint8), np.zeros((1, nodes), np.float32), np.zeros((1, nodes + 1), np.float32)
        )
