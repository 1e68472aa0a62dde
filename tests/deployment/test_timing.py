from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kneepoint.deployment.timing import Interval, median_interval, noise_of, ratio_interval

TIMES = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=60)
Draw = Callable[[np.random.Generator, int], "np.ndarray[tuple[int], np.dtype[np.float64]]"]


def two_speeds(rng: np.random.Generator, count: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.where(rng.random(count) < 0.2, 3.0, 1.0) + rng.random(count)


DISTRIBUTIONS: dict[str, tuple[Draw, float]] = {
    "normal": (lambda rng, count: rng.normal(5, 1, count), 5.0),
    "skewed": (lambda rng, count: rng.exponential(1, count), math.log(2)),
    "heavy": (lambda rng, count: rng.standard_cauchy(count), 0.0),
    "two speeds": (two_speeds, 1.625),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize("count", [6, 10, 31])
def test_the_interval_holds_the_median_as_often_as_it_says(name: str, count: int) -> None:
    draw, median = DISTRIBUTIONS[name]
    rng, repeats = np.random.default_rng(0), 1500
    intervals = [median_interval(draw(rng, count)) for _ in range(repeats)]
    held = np.mean([interval.holds(median) for interval in intervals])
    promised = intervals[0].confidence
    assert promised >= 0.95
    assert abs(held - promised) < 4 * math.sqrt(promised * (1 - promised) / repeats)


def test_order_statistics_by_hand() -> None:
    assert median_interval(range(1, 7)) == Interval(3.5, 1, 6, 1 - 2 / 64)
    assert median_interval(range(1, 9)) == Interval(4.5, 1, 8, 1 - 2 / 256)
    # https://doi.org/10.1002/9781119482260 and every table of the sign test: n = 20 takes the 6th and the 15th.
    found = median_interval(range(1, 21))
    assert (found.low, found.high) == (6, 15)
    assert found.confidence == pytest.approx(0.9586, abs=1e-4)
    assert median_interval(range(1, 21), 0.99).low == 4


@pytest.mark.parametrize(("count", "confidence"), [(1, 0.0), (2, 0.5), (3, 0.75), (5, 1 - 2 / 32)])
def test_few_samples_promise_less(count: int, confidence: float) -> None:
    found = median_interval(range(count))
    assert (found.low, found.high) == (0, count - 1)
    assert found.confidence == pytest.approx(confidence)
    assert (found.error is None) == (count == 1)


@given(TIMES)
def test_an_interval_is_around_the_median_and_among_the_samples(samples: list[float]) -> None:
    found = median_interval(samples)
    assert min(samples) <= found.low <= found.value <= found.high <= max(samples)
    assert found.value == np.median(samples)
    assert 0 <= found.confidence < 1
    assert found.error is None or found.error >= 0


@given(TIMES, st.sampled_from([2.0, 0.5]))
def test_an_interval_has_the_unit_of_its_samples(samples: list[float], factor: float) -> None:
    first, scaled = median_interval(samples), median_interval([factor * value for value in samples])
    assert (scaled.value, scaled.low, scaled.high) == (factor * first.value, factor * first.low, factor * first.high)
    assert scaled.half_width == pytest.approx(first.half_width)


@given(st.integers(1, 400), st.floats(0.5, 0.999))
def test_more_confidence_is_wider(count: int, confidence: float) -> None:
    narrow, wide = median_interval(range(count), 0.5), median_interval(range(count), confidence)
    assert wide.low <= narrow.low
    assert narrow.high <= wide.high
    assert wide.confidence >= min(confidence, median_interval(range(count), 0.999).confidence)


def test_the_standard_error_is_that_of_the_median() -> None:
    rng = np.random.default_rng(0)
    samples = rng.normal(5, 1, (400, 25))
    claimed = np.mean([median_interval(row).error for row in samples])
    assert claimed == pytest.approx(np.median(samples, axis=1).std(), rel=0.15)


@given(st.lists(st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)), min_size=1, max_size=40))
def test_the_swapped_ratio_is_the_inverse(pairs: list[tuple[float, float]]) -> None:
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    there, back = ratio_interval(first, second), ratio_interval(second, first)
    assert there.value == pytest.approx(1 / back.value)
    assert there.low == pytest.approx(1 / back.high)
    assert there.high == pytest.approx(1 / back.low)


def test_drift_that_hits_both_cancels() -> None:
    drift = np.exp(np.random.default_rng(0).normal(0, 0.5, 20))
    found = ratio_interval(drift, 1.25 * drift)
    assert found.low == pytest.approx(1.25)
    assert found.high == pytest.approx(1.25)


@pytest.mark.parametrize("samples", [[], [1.0, math.nan], [math.inf], [[1.0]]])
def test_what_has_no_median_is_refused(samples: list[float]) -> None:
    with pytest.raises(ValueError, match="a list of finite samples, at least one"):
        median_interval(samples)


@pytest.mark.parametrize(("first", "second"), [([1.0], [1.0, 2.0]), ([0.0], [1.0]), ([1.0], [-1.0])])
def test_what_has_no_ratio_is_refused(first: list[float], second: list[float]) -> None:
    with pytest.raises(ValueError, match="pairs of positive samples"):
        ratio_interval(first, second)


@pytest.mark.parametrize("confidence", [0.0, 1.0, -1.0, math.nan])
def test_a_confidence_lies_between_0_and_1(confidence: float) -> None:
    with pytest.raises(ValueError, match="a confidence lies between 0 and 1"):
        median_interval([1.0, 2.0], confidence)


def test_noise_is_drift_or_interruptions() -> None:
    steady = [1.0, 1.01, 0.99, 1.0, 1.02]
    assert noise_of(steady, steady).spread == pytest.approx(0.01)
    assert noise_of(steady, steady).interruptions == 0
    assert not noise_of(steady, steady).noisy
    interrupted = noise_of(steady, [1.2 * value for value in steady])
    assert interrupted.noisy
    assert interrupted.interruptions == pytest.approx(0.2)
    assert not noise_of(steady, [1.05 * value for value in steady]).noisy
    drifting = noise_of([1.0, 1.1, 1.2, 1.3], [1.0, 1.1, 1.2, 1.3])
    assert drifting.noisy
    assert "THE MACHINE WAS NOISY: rounds spread by 13.0%" in str(drifting)
    assert str(noise_of([2.0], [2.0])).startswith("the machine was quiet")
    assert drifting.to_json().keys() == {"spread", "interruptions", "noisy", "verdict"}
