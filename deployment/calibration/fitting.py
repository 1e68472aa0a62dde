"""From timed micro-networks to a latency model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.linear_model import LinearRegression

from kneepoint.deployment.calibration.samples import SampleTable
from kneepoint.hardware_models.features import features, terms, variants
from kneepoint.hardware_models.latency_model import LatencyModel, VariantModel
from kneepoint.hardware_models.regression_trees import RegressionTrees

Floats = NDArray[np.float64]
_RELATIVE_NOISE, _NOISE_US = 0.03, 0.4
"""Standard errors of a timed kernel: of its time, and what cutting off to microseconds and the profiler leave."""
_LEAST_US = 0.15
_FEWEST_FOR_FIT, _FEWEST_FOR_TREES = 6, 40
_DEPTH = 4
_USUAL_PROFILER_US = 2.0
_PROFILER_RANGE_US = (0.5, 4.5)
_SMALL_NETWORK_US = 1500.0
_FLOOR_SCALE = 10.0
"""Gives a network's own floor a prior so many times as wide as that of a kernel's launch."""


@dataclass(frozen=True)
class Fit:
    """A model, and what it takes to compare it with what the profiler saw.

    Attributes:
        model: The model.
        profiler_us: Microseconds that the profiler itself adds to a kernel, by kind and format.
    """

    model: LatencyModel
    profiler_us: Mapping[str, float]

    def true_latency(self, table: SampleTable) -> Floats:
        """(kernels,) microseconds of the kernels in ``table`` without the profiler's own share; NaN where unknown."""
        return _true_latency(table, _kinds(variants(table.workload)), self.profiler_us)


def fit(table: SampleTable) -> Fit:
    """The model of the samples in ``table``, which share a thread count."""
    names = np.array(variants(table.workload), dtype=object)
    kinds = _kinds(names)
    profiler_us = _profiler_us(table, kinds)
    latency = _true_latency(table, kinds, profiler_us)
    term, feature = terms(table.workload), features(table.workload)
    known = np.isfinite(latency)
    fitted = {}
    for name in sorted(set(names[known])):
        rows = np.flatnonzero((names == name) & known)
        if len(rows) >= _FEWEST_FOR_FIT:
            fitted[name] = _fit_variant(term[rows], feature[rows], latency[rows])
    model = LatencyModel(fitted, network_floor_us=0.0, kernel_error=0.0, common_error=0.0)
    return Fit(_with_shifts(model, table, names), profiler_us)


# --- what the profiler takes ---------------------------------------------------------------------------------------


def _kinds(names: Iterable[str]) -> NDArray[np.object_]:
    """Kind and format of variants: the nodes of one operator cost the profiler about the same."""
    return np.array([":".join(name.split(":")[:2]) for name in names], dtype=object)


def _true_latency(table: SampleTable, kinds: NDArray[np.object_], profiler_us: Mapping[str, float]) -> Floats:
    share = np.array([profiler_us.get(kind, _USUAL_PROFILER_US) for kind in kinds])
    latency: Floats = np.maximum(table.microseconds - share, _LEAST_US)
    return latency


def _profiler_us(table: SampleTable, kinds: NDArray[np.object_]) -> dict[str, float]:
    """By how much the profiler's times of a network add up to more than it takes without, in small networks."""
    known = sorted(set(kinds))
    count = _counts(table, kinds, known)
    seen = np.bincount(table.network, np.nan_to_num(table.microseconds), len(table.total_us))
    small = table.complete & (table.total_us < _SMALL_NETWORK_US)
    spread = 0.02 * table.total_us + 0.2 * np.sqrt(count.sum(1))
    excess = (seen - table.total_us) - _USUAL_PROFILER_US * count.sum(1)
    matrix = np.column_stack((count, -np.full(len(count), _FLOOR_SCALE)))  # a network's own floor is in its total
    found = _USUAL_PROFILER_US + _robust_ridge(matrix[small], excess[small], spread[small], prior=0.3)[:-1]
    return dict(zip(known, np.clip(found, *_PROFILER_RANGE_US).tolist(), strict=True))


def _counts(table: SampleTable, labels: NDArray[np.object_], known: Sequence[str]) -> Floats:
    """(samples, labels): how many kernels of each there are."""
    place = {label: index for index, label in enumerate(known)}
    count = np.zeros((len(table.total_us), len(known)))
    np.add.at(count, (table.network, np.array([place[label] for label in labels], np.int64)), 1)
    return count


def _robust_ridge(matrix: Floats, target: Floats, spread: Floats, prior: float) -> Floats:
    """Least squares with a normal prior of width ``prior``; rows that miss by more than 3 spreads lose their weight."""
    solution: Floats = np.zeros(matrix.shape[1])
    for _ in range(8):
        miss = np.abs(target - matrix @ solution) / spread
        weight = np.minimum(1, 3 / np.maximum(miss, 1e-9)) / spread**2
        normal = (matrix * weight[:, None]).T @ matrix + np.eye(matrix.shape[1]) / prior**2
        solution = np.asarray(np.linalg.solve(normal, (matrix * weight[:, None]).T @ target), np.float64)
    return solution


# --- one variant ---------------------------------------------------------------------------------------------------


def _fit_variant(term: Floats, feature: NDArray[np.float32], latency: Floats) -> VariantModel:
    spread = np.hypot(_RELATIVE_NOISE * latency, _NOISE_US)
    roofline = LinearRegression(fit_intercept=False, positive=True).fit(term, latency, sample_weight=1 / spread**2)
    coefficients = np.asarray(roofline.coef_, np.float64)
    base = np.maximum(term @ coefficients, _LEAST_US)
    model = VariantModel(coefficients, lowest_us=float(0.7 * latency.min()), samples=len(latency))
    if len(latency) < _FEWEST_FOR_TREES:
        return model
    trees = _fit_trees(feature, np.log(latency / base), (latency / spread) ** 2)
    return replace(model, trees=trees)


def _fit_trees(feature: NDArray[np.float32], residual: Floats, weight: Floats) -> RegressionTrees:
    count = int(np.clip(len(residual) / 4, 20, 120))
    boosting = GradientBoostingRegressor(
        n_estimators=count,
        max_depth=_DEPTH,
        learning_rate=0.1,
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
    count = _counts(table, np.where(priced, names, known[0]), known)
    matrix = np.column_stack((count, np.full(len(count), _FLOOR_SCALE)))[usable]
    missing = (table.total_us - predicted)[usable]
    shifts = _robust_ridge(matrix, missing, 0.02 * table.total_us[usable] + 0.3, prior=0.3)
    fitted = {
        name: replace(model.variants[name], shift_us=float(shift)) for name, shift in zip(known, shifts, strict=False)
    }
    return replace(model, variants=fitted, network_floor_us=max(0.0, _FLOOR_SCALE * float(shifts[-1])))
