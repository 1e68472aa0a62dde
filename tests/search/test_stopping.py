"""A search ends where more candidates would add less than noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import optuna
import pytest

from kneepoint.search.axis import Axis
from kneepoint.search.front import Front, losses
from kneepoint.search.pareto import hypervolume
from kneepoint.search.sampling.kneepoint_sampler import KneepointSampler
from kneepoint.search.stopping import Stopping, hypervolume_error
from tests.search.conftest import MakeCandidate


@pytest.fixture
def front(candidate: MakeCandidate, axes: tuple[Axis, ...]) -> Front:
    """Two members whose accuracy has a standard error of 0.01."""
    return Front([candidate(0.8, 5.0, 0.5), candidate(0.6, 2.0, 0.2, name="b")], axes, {})


def told(front: Front, gains: Sequence[float], measured: Sequence[str] = ("accuracy",)) -> list[bool]:
    sampler = KneepointSampler(0)
    stopping = Stopping(sampler, measured)
    found = []
    for gain in gains:
        sampler.course.expected_gain = gain
        found.append(stopping.is_due(front))
    return found


def test_the_error_of_a_hypervolume_is_that_of_its_draws(front: Front) -> None:
    table = losses(front, front.axes)
    draws = np.random.default_rng(5).standard_normal((4000, 2))
    volumes = []
    for draw in draws:
        moved = table.copy()
        moved[:, 0] += 0.01 * draw
        volumes.append(hypervolume(moved))
    assert hypervolume_error(front, ["accuracy"]) == pytest.approx(np.std(volumes), rel=0.3)


def test_what_a_cost_model_doubts_is_no_noise(front: Front, axes: tuple[Axis, ...]) -> None:
    assert hypervolume_error(front, ["latency_ms@pi"]) == 0.0
    assert hypervolume_error(front, []) == 0.0
    assert hypervolume_error(Front([], axes, {}), ["accuracy"]) == 0.0


def test_it_stops_after_three_batches_that_promise_nothing(front: Front) -> None:
    assert told(front, [float("inf"), 0.1, 1e-9, 2e-9, 3e-9]) == [False] * 4 + [True]
    assert told(front, [1e-9, 2e-9, 0.1, 1e-9, 2e-9]) == [False] * 5


def test_one_batch_counts_once(front: Front) -> None:
    assert told(front, [1e-9] * 10) == [False] * 10


def test_without_noise_every_gain_is_worth_having(front: Front) -> None:
    assert told(front, [1e-9, 2e-9, 3e-9], measured=[]) == [False] * 3


def test_other_samplers_go_on(front: Front) -> None:
    stopping = Stopping(optuna.samplers.RandomSampler(), ["accuracy"])
    assert not any(stopping.is_due(front) for _ in range(5))
