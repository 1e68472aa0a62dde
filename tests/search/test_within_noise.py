"""Dominance beyond standard errors: known answers, and invariants against the plain front."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from kneepoint.search.pareto import Matrix, non_dominated
from kneepoint.search.within_noise import alike, undominated

SHAPES = st.tuples(st.integers(0, 10), st.integers(1, 3))
LOSSES = arrays.arrays(np.float64, SHAPES, elements=st.sampled_from([*np.linspace(0, 1, 6), np.nan, np.inf]))


def points(*rows: tuple[float, ...]) -> Matrix:
    return np.array(rows, np.float64)


@pytest.mark.parametrize(
    ("error", "expected"),
    [(0.0, [0]), (0.01, [0]), (0.04, [0, 1])],
    ids=["exact", "told apart", "within noise"],
)
def test_a_dominated_point_stays_while_the_errors_cover_the_difference(error: float, expected: list[int]) -> None:
    losses = points((0.1, 0.5), (0.2, 0.5))
    assert undominated(losses, points((error, 0.0), (error, 0.0))) == expected


def test_an_exact_loss_decides_however_noisy_the_others_are() -> None:
    assert undominated(points((0.1, 0.5), (0.1, 0.6)), points((0.5, 0.0), (0.5, 0.0))) == [0]


def test_equal_points_all_stay() -> None:
    assert undominated(points((0.1, 0.5), (0.1, 0.5), (0.2, 0.2)), np.zeros((3, 2))) == [0, 1, 2]


@settings(deadline=None)
@given(losses=LOSSES, error=st.sampled_from([0.0, 0.05, 0.3]))
def test_the_plain_front_is_part_of_it_and_more_noise_never_removes_a_point(losses: Matrix, error: float) -> None:
    found = set(undominated(losses, np.full(losses.shape, error)))
    assert set(non_dominated(losses)) <= found <= set(np.flatnonzero(np.isfinite(losses).all(axis=1)))
    assert found <= set(undominated(losses, np.full(losses.shape, 2 * error)))


@settings(deadline=None)
@given(losses=LOSSES)
def test_without_noise_it_is_the_plain_front_with_its_ties(losses: Matrix) -> None:
    front = losses[non_dominated(losses)]
    expected = [row for row, point in enumerate(losses) if any((point == member).all() for member in front)]
    assert undominated(losses, np.zeros(losses.shape)) == expected


def test_alike_is_what_no_uncertain_loss_tells_apart() -> None:
    losses, errors = points((0.10, 0.5), (0.12, 0.9), (0.40, 0.5)), points((0.02, 0.0), (0.02, 0.0), (0.02, 0.0))
    assert alike(losses, errors).tolist() == [[False, True, False], [True, False, False], [False, False, False]]


def test_exact_losses_leave_nothing_alike() -> None:
    assert not alike(points((0.1, 0.5), (0.1, 0.5)), np.zeros((2, 2))).any()
