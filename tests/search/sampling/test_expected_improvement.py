"""Sampled volumes agree with exact hypervolumes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from kneepoint.search.pareto import hypervolume
from kneepoint.search.sampling.expected_improvement import Floats, Guesses, MissingVolume, best_batch, dominated

unit = st.floats(0.0, 0.95)


def guesses(mean: Floats, spread: float = 0.0) -> Guesses:
    return Guesses(mean, np.full(mean.shape, spread), np.ones(len(mean)), np.ones(mean.shape[1]))


def missing(front: Floats, mean: Floats, spread: float = 0.0, count: int = 8000) -> MissingVolume:
    columns = list(range(mean.shape[1]))
    return MissingVolume.of(front, guesses(mean, spread), columns, np.random.default_rng(0), count)


@settings(deadline=None, max_examples=30)
@given(
    arrays.arrays(np.float64, st.tuples(st.integers(0, 5), st.just(3)), elements=unit),
    arrays.arrays(np.float64, (1, 3), elements=unit),
)
def test_the_improvement_of_a_certain_point_is_what_it_adds(front: Floats, point: Floats) -> None:
    volume = missing(front, point)
    gain = float(volume.covered(guesses(point))[0] @ volume.weights)
    assert gain == pytest.approx(hypervolume(np.concatenate((front, point))) - hypervolume(front), abs=0.02)


def test_an_uncertain_point_adds_what_its_draws_add_on_average() -> None:
    front = np.array([[0.2, 0.6], [0.6, 0.2]])
    mean = np.array([[0.4, 0.4]])
    volume = missing(front, mean, 0.1, 20_000)
    gain = float(volume.covered(guesses(mean, 0.1))[0] @ volume.weights)
    draws = mean + 0.1 * np.random.default_rng(1).standard_normal((4000, 2))
    adds = [hypervolume(np.concatenate((front, draw[None]))) - hypervolume(front) for draw in draws]
    assert gain == pytest.approx(np.mean(adds), rel=0.05)


def test_beyond_a_limit_nothing_is_added_and_within_it_the_whole_volume() -> None:
    """A limit says what is feasible; how much a feasible setting covers is still counted up to the reference point."""
    mean, limits = np.array([[0.4, 0.4]]), np.array([0.42, 1.0])
    limited = replace(guesses(mean, 0.1), limits=limits)
    volume = MissingVolume.of(np.zeros((0, 2)), limited, [0, 1], np.random.default_rng(0), 20_000)
    gain = float(volume.covered(limited)[0] @ volume.weights)
    draws = mean + 0.1 * np.random.default_rng(1).standard_normal((4000, 2))
    adds = [hypervolume(draw[None]) if (draw <= limits).all() else 0.0 for draw in draws]
    assert gain == pytest.approx(np.mean(adds), rel=0.05)


def test_a_limit_on_a_loss_of_another_front_counts() -> None:
    mean = np.array([[0.4, 0.2], [0.4, 0.5]])
    limited = replace(guesses(mean), limits=np.array([1.0, 0.3]))
    assert limited.may_add(np.zeros((0, 2)), [[0]]).tolist() == [True, False]
    volume = MissingVolume.of(np.zeros((0, 2)), limited, [0], np.random.default_rng(0), 100)
    gains = volume.covered(limited) @ volume.weights
    assert gains == pytest.approx([0.6, 0.0], abs=0.05)


def test_a_batch_spreads_over_what_is_missing() -> None:
    mean = np.array([[0.1, 0.8], [0.11, 0.79], [0.8, 0.1], [0.9, 0.9]])
    volume = missing(np.zeros((0, 2)), mean)
    chosen = best_batch([volume], guesses(mean), 2)
    assert {row for row, _ in chosen} & {0, 1}
    assert 2 in {row for row, _ in chosen}
    assert chosen[0][1] >= chosen[1][1] >= 0


def test_what_is_under_way_leaves_less_to_add() -> None:
    mean = np.array([[0.3, 0.3], [0.31, 0.31]])
    volume = missing(np.zeros((0, 2)), mean)
    less = volume.without(guesses(mean[:1]))
    (_, before), *_ = best_batch([volume], guesses(mean[1:]), 1)
    (_, after), *_ = best_batch([less], guesses(mean[1:]), 1)
    assert after < 0.05 * before


def test_nothing_is_missing_where_nothing_can_be_reached() -> None:
    volume = missing(np.array([[0.0, 0.0]]), np.array([[0.5, 0.5]]))
    assert len(volume.points) == 0
    assert best_batch([volume], guesses(np.array([[0.5, 0.5]])), 1) == [(0, 0.0)]
    beyond = missing(np.zeros((0, 2)), np.array([[1.0, 0.5]]))
    assert len(beyond.points) == 0


def test_a_point_is_dominated_by_what_is_as_good() -> None:
    front = np.array([[0.5, 0.5]])
    assert dominated(np.array([[0.5, 0.5], [0.4, 0.9], [0.6, 0.6]]), front).tolist() == [True, False, True]


def test_what_is_probably_infeasible_adds_as_much_less() -> None:
    mean = np.array([[0.3, 0.3]])
    volume, doubtful = missing(np.zeros((0, 2)), mean), Guesses(mean, np.zeros((1, 2)), np.array([0.25]), np.ones(2))
    (_, whole), *_ = best_batch([volume], guesses(mean), 1)
    (_, quarter), *_ = best_batch([volume], doubtful, 1)
    assert quarter == pytest.approx(whole / 4)


def test_what_is_told_is_known() -> None:
    told = guesses(np.array([[0.3, 0.4]]), 0.1).told(np.array([[np.nan, 0.7]]))
    assert (told.mean.tolist(), told.spread.tolist()) == ([[0.3, 0.7]], [[0.1, 0.0]])
