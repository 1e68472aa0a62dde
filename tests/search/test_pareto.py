"""Known answers and invariants of point sets."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from kneepoint.search.pareto import Matrix, hypervolume, non_dominated

tables = arrays.arrays(
    np.float64,
    st.tuples(st.integers(0, 12), st.integers(1, 4)),
    elements=st.sampled_from([*np.linspace(-0.2, 1.2, 8), np.nan, np.inf, -np.inf]),
)


def table(*rows: tuple[float, ...]) -> Matrix:
    return np.array(rows, dtype=np.float64)


def dominates(first: Matrix, second: Matrix) -> bool:
    return bool((first <= second).all() and (first < second).any())


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        (table((0.0, 0.0)), 1.0),
        (table((0.5, 0.5)), 0.25),
        (table((0.25, 0.75), (0.75, 0.25)), 0.25 * 0.75 * 2 - 0.25**2),
        (table((0.5, 0.5), (0.5, 0.5), (0.6, 0.9)), 0.25),
        (table((1.0, 0.0)), 0.0),
        (table((1.5, -3.0)), 0.0),
        (table((-1.0, 0.5)), 0.5),
        (table((np.nan, 0.0), (0.0, np.inf), (-np.inf, 0.1)), 0.0),
        (table((0.5, 0.5, 0.5), (0.0, 0.9, 0.9)), 0.125 + 0.01 - 0.5 * 0.1 * 0.1),
        (np.empty((0, 3)), 0.0),
        (table((0.25,), (0.75,)), 0.75),
    ],
)
def test_hypervolume_has_known_answers(points: Matrix, expected: float) -> None:
    assert hypervolume(points) == pytest.approx(expected)


@settings(deadline=None)
@given(points=tables, seed=st.integers(0, 99))
def test_hypervolume_ignores_the_order_and_never_falls_with_more_points(points: Matrix, seed: int) -> None:
    whole = hypervolume(points)
    order = np.random.default_rng(seed).permutation(len(points))
    assert hypervolume(points[order]) == pytest.approx(whole, abs=1e-12)
    assert 0.0 <= hypervolume(points[:-1]) <= whole + 1e-12 <= 1.0 + 1e-9


@settings(deadline=None)
@given(points=tables)
def test_the_front_is_mutually_non_dominated_and_covers_the_rest(points: Matrix) -> None:
    front = non_dominated(points)
    assert all(np.isfinite(points[row]).all() for row in front)
    assert not any(dominates(points[a], points[b]) for a, b in itertools.permutations(front, 2))
    assert front == sorted(front)
    finite = [row for row in range(len(points)) if np.isfinite(points[row]).all()]
    for row in set(finite) - set(front):
        assert any(dominates(points[kept], points[row]) or (points[kept] == points[row]).all() for kept in front)
    assert hypervolume(points[front]) == pytest.approx(hypervolume(points), abs=1e-12)


def test_of_equal_rows_the_first_stays() -> None:
    assert non_dominated(table((0.9, 0.9), (0.2, 0.3), (0.2, 0.3), (0.1, 0.8))) == [1, 3]
