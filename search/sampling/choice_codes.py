"""Settings of Optuna parameters as positions among a few choices each, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

Codes = npt.NDArray[np.int64]
MOST_CHOICES = 24
"""A parameter with more values than this is cut into so many ranges, each standing for the value in its middle."""


class ChoiceCodes:
    """The choices of every parameter of a search space, in the order of their names.

    Args:
        space: What the parameters may be.
    """

    def __init__(self, space: Mapping[str, BaseDistribution]) -> None:
        self.names = tuple(sorted(space))
        self.choices = tuple(tuple(_choices(space[name])) for name in self.names)
        self.ordered = tuple(not isinstance(space[name], CategoricalDistribution) for name in self.names)
        self.counts = tuple(len(values) for values in self.choices)
        self.categories = [column for column, ordered in enumerate(self.ordered) if not ordered]
        self._place = [_places(values) for values in self.choices]

    def encode(self, settings: Sequence[Mapping[str, Any]]) -> Codes:
        """(settings, parameters) int64: the position of each value, or of the one that is nearest."""
        rows = [[self._position(column, entry[name]) for column, name in enumerate(self.names)] for entry in settings]
        return np.array(rows, np.int64).reshape(len(settings), len(self.names))

    def decode(self, codes: Codes) -> dict[str, Any]:
        """The setting of one row."""
        return {name: self.choices[column][int(codes[column])] for column, name in enumerate(self.names)}

    def _position(self, column: int, value: Any) -> int:
        found = self._place[column].get(_key(value))
        if found is not None:
            return found
        if not self.ordered[column]:
            return 0  # a category that the study no longer has
        return int(np.argmin(np.abs(np.array(self.choices[column], np.float64) - float(value))))


def _key(value: Any) -> Any:
    """Apart what Python takes for equal: True and 1; and what is not equal to itself."""
    return (type(value).__name__, repr(value)) if isinstance(value, bool | float | str) else value


def _places(values: Sequence[Any]) -> dict[Any, int]:
    return {_key(value): place for place, value in enumerate(values)}


def _choices(distribution: BaseDistribution) -> list[Any]:
    """The values of a distribution, thinned out where they are many.

    Raises:
        TypeError: If the distribution is of a kind that Optuna does not have.
    """
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    if isinstance(distribution, IntDistribution):
        steps = (distribution.high - distribution.low) // distribution.step
        places = _thinned(steps, log=distribution.log, low=distribution.low)
        return [distribution.low + distribution.step * place for place in places]
    if isinstance(distribution, FloatDistribution):
        return _floats(distribution)
    raise TypeError(f"a distribution is categorical, int or float; got {distribution!r}")


def _thinned(steps: int, *, log: bool, low: int) -> list[int]:
    if steps < MOST_CHOICES:
        return list(range(steps + 1))
    found = np.geomspace(low, low + steps, MOST_CHOICES) - low if log else np.linspace(0, steps, MOST_CHOICES)
    return sorted({round(float(place)) for place in found})


def _floats(distribution: FloatDistribution) -> list[float]:
    low, high = distribution.low, distribution.high
    if distribution.step is not None:
        places = _thinned(round((high - low) / distribution.step), log=False, low=0)
        return [min(high, low + distribution.step * place) for place in places]
    if low == high:
        return [low]
    spread = np.geomspace if distribution.log else np.linspace
    return [float(np.clip(value, low, high)) for value in spread(low, high, MOST_CHOICES)]
