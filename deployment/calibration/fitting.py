"""From timed micro-networks to a latency model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.linear_model import LinearRegression

from kneepoint.deployment.calibration.kernel_times import (
    LEAST_US,
    RELATIVE_NOISE,
    USUAL_FLOOR_US,
    Ruler,
    counts,
    robust_ridge,
)
from kneepoint.deployment.calibration.samples import SampleTable
from kneepoint.hardware_models.features import features, terms, variants
from kneepoint.hardware_models.latency_model import LatencyModel, VariantModel
from kneepoint.hardware_models.regression_trees import RegressionTrees

Floats = NDArray[np.float64]
_FEWEST_FOR_FIT, _FEWEST_FOR_TREES = 6, 40
_DEPTH, _MOST_TREES, _RATE = 3, 120, 0.1
_ROUNDS = 3
"""Every round knows the shortest kernels better: by the model of the round before."""
_FLOOR_SCALE = 2.0
"""Gives a network's own floor a prior so many times as wide as that of a kernel's launch."""


@dataclass(frozen=True)
class Fit:
    """A model, and what it takes to compare it with what the profiler saw.

    Attributes:
        model: The model.
        ruler: Reads the profiler.
    """

    model: LatencyModel
    ruler: Ruler


def fit(table: SampleTable) -> Fit:
    """The model of the samples in ``table``, which share a thread count."""
    ruler = Ruler.of(table)
    made = _Fitting(table, np.array(variants(table.workload), dtype=object), terms(table.workload))
    model = made.model(*ruler.latency(table))
    for _ in range(_ROUNDS - 1):
        believed, known = model.predict(table.workload)
        ruler = replace(ruler, network_floor_us=model.network_floor_us)
        model = made.model(*ruler.latency(table, np.where(known, believed, np.nan)))
    return Fit(model, replace(ruler, network_floor_us=model.network_floor_us))


@dataclass(frozen=True, eq=False)
class _Fitting:
    """What all rounds of a fit share."""

    table: SampleTable
    names: NDArray[np.object_]
    term: Floats

    @cached_property
    def feature(self) -> NDArray[np.float32]:
        return features(self.table.workload)

    def model(self, latency: Floats, spread: Floats) -> LatencyModel:
        known = np.isfinite(latency)
        fitted = {}
        for name in sorted(set(self.names[known])):
            rows = np.flatnonzero((self.names == name) & known)
            if len(rows) >= _FEWEST_FOR_FIT:
                fitted[name] = _fit_variant(self.term[rows], self.feature[rows], latency[rows], spread[rows])
        model = LatencyModel(fitted, network_floor_us=0.0, kernel_error=0.0, common_error=0.0)
        return _with_shifts(model, self.table, self.names)


# --- one variant ---------------------------------------------------------------------------------------------------


def _fit_variant(term: Floats, feature: NDArray[np.float32], latency: Floats, spread: Floats) -> VariantModel:
    spread = np.hypot(spread, RELATIVE_NOISE * latency)
    roofline = LinearRegression(fit_intercept=False, positive=True).fit(term, latency, sample_weight=1 / spread**2)
    coefficients = np.asarray(roofline.coef_, np.float64)
    base = np.maximum(term @ coefficients, LEAST_US)
    model = VariantModel(coefficients, lowest_us=float(0.7 * latency.min()), samples=len(latency))
    if len(latency) < _FEWEST_FOR_TREES:
        return model
    trees = _fit_trees(feature, np.log(latency / base), (latency / spread) ** 2)
    return replace(model, trees=trees)


def _fit_trees(feature: NDArray[np.float32], residual: Floats, weight: Floats) -> RegressionTrees:
    count = int(np.clip(len(residual) / 4, 20, _MOST_TREES))
    boosting = GradientBoostingRegressor(
        n_estimators=count,
        max_depth=_DEPTH,
        learning_rate=_RATE,
        subsample=0.7,
        min_samples_leaf=2,
        max_features=0.5,
        random_state=0,
    )
    return trees_of(boosting.fit(feature, residual, sample_weight=weight))


def trees_of(boosting: GradientBoostingRegressor) -> RegressionTrees:
    """Fitted trees of scikit-learn as arrays, with leaves of 16 bits."""
    start = float(boosting.init_.constant_[0, 0])
    return _complete([tree.tree_ for tree in boosting.estimators_[:, 0]], boosting.learning_rate, start)


@dataclass
class _Arrays:
    feature: NDArray[np.uint8]
    threshold: NDArray[np.float32]
    value: NDArray[np.float32]


def _complete(trees: Sequence[Any], rate: float, start: float) -> RegressionTrees:
    """Trees of scikit-learn as complete trees; a leaf that comes early is repeated below itself."""
    nodes = 2**_DEPTH - 1
    arrays = _Arrays(
        np.zeros((len(trees), nodes), np.uint8),
        np.full((len(trees), nodes), np.inf, np.float32),
        np.zeros((len(trees), nodes + 1), np.float32),
    )
    for row, tree in enumerate(trees):
        _copy(tree, 0, arrays, row, 0, rate)
    arrays.value[0] += start
    return RegressionTrees(arrays.feature, arrays.threshold, arrays.value.astype(np.float16).astype(np.float32))


def _copy(tree: Any, source: int, arrays: _Arrays, row: int, target: int, rate: float) -> None:
    nodes = arrays.feature.shape[1]
    left, right = tree.children_left[source], tree.children_right[source]
    if target >= nodes:
        arrays.value[row, target - nodes] = rate * tree.value[source, 0, 0]
        return
    if left >= 0:
        arrays.feature[row, target] = tree.feature[source]
        arrays.threshold[row, target] = tree.threshold[source]
    else:
        left = right = source
    _copy(tree, left, arrays, row, 2 * target + 1, rate)
    _copy(tree, right, arrays, row, 2 * target + 2, rate)


# --- whole networks ------------------------------------------------------------------------------------------------


def _with_shifts(model: LatencyModel, table: SampleTable, names: NDArray[np.object_]) -> LatencyModel:
    """What the totals of whole networks show to be missing at every launch of a variant, and once for a network."""
    latency, priced = model.predict(table.workload)
    predicted = np.bincount(table.network, latency, len(table.total_us))
    unpriced = np.bincount(table.network, ~priced, len(table.total_us))
    usable = table.complete & (unpriced == 0)
    known = sorted(model.variants)
    if not known:
        return model
    count = counts(table, np.where(priced, names, known[0]), known)
    matrix = np.column_stack((count, np.full(len(count), _FLOOR_SCALE)))[usable]
    missing = (table.total_us - predicted - USUAL_FLOOR_US)[usable]
    shifts = robust_ridge(matrix, missing, 0.02 * table.total_us[usable] + 0.3, prior=0.3)
    fitted = {
        name: replace(model.variants[name], shift_us=float(shift)) for name, shift in zip(known, shifts, strict=False)
    }
    return replace(model, variants=fitted, network_floor_us=max(0.0, USUAL_FLOOR_US + _FLOOR_SCALE * float(shifts[-1])))
