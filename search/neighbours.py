"""Small steps of one parameter, for every kind of Optuna distribution."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

JUMP = 0.15
"""Chance that an integer takes any value instead of a neighbouring one."""
WIDTH = 0.1
"""Standard deviation of a step without a grid, as a share of the range."""


def neighbour(value: Any, distribution: BaseDistribution, rng: np.random.Generator, way: int = 0) -> Any:
    """A value near ``value``, within the distribution.

    Args:
        value: Where to start.
        distribution: Of the parameter; a category has no order, so any other one is near.
        rng: Source of the choice.
        way: -1 or 1 for a step in that direction, 0 for either.

    Raises:
        TypeError: If the distribution is of a kind that Optuna does not have.
    """
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[int(rng.integers(len(distribution.choices)))]
    if isinstance(distribution, IntDistribution):
        return _int(int(value), distribution, rng, way)
    if isinstance(distribution, FloatDistribution):
        return _float(float(value), distribution, rng, way)
    raise TypeError(f"a distribution is categorical, int or float; got {distribution!r}")


def _int(value: int, distribution: IntDistribution, rng: np.random.Generator, way: int) -> int:
    step, low = distribution.step, distribution.low
    last = (distribution.high - low) // step
    if rng.random() < JUMP:
        return low + step * int(rng.integers(last + 1))
    reach = max(1, round(WIDTH * value)) if distribution.log else 1
    moved = (value - low) // step + reach * (way or int(rng.choice((-1, 1))))
    return low + step * min(max(moved, 0), last)


def _float(value: float, distribution: FloatDistribution, rng: np.random.Generator, way: int) -> float:
    low, high = distribution.low, distribution.high
    if distribution.step is not None:
        last = round((high - low) / distribution.step)
        moved = round((value - low) / distribution.step) + (way or int(rng.choice((-1, 1))))
        return float(low + distribution.step * min(max(moved, 0), last))
    shift = float(rng.normal(0.0, WIDTH))
    shift = way * abs(shift) if way else shift
    if distribution.log:
        return float(min(max(math.exp(math.log(value) + shift * math.log(high / low)), low), high))
    return float(min(max(value + shift * (high - low), low), high))
