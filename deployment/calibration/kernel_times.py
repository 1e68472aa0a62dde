"""What kernels take, from two rulers: a profiler that sees each but disturbs it, and a clock that sees only their sum.

The profiler cuts off to whole microseconds and adds a share of its own to every kernel; an inference without it is
timed to a fraction of a percent. What the profiler adds is fitted by kind, then what is left of each network's
discrepancy is spread over its kernels by how uncertain each is (a Kalman update with one observation). A model that
was fitted to such times is a third ruler, for kernels that are shorter than the profiler's step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kneepoint.deployment.calibration.samples import SampleTable
from kneepoint.hardware_models.features import variants

Floats = NDArray[np.float64]
RELATIVE_NOISE, NOISE_US = 0.03, 0.8
"""Standard errors of a profiled kernel: of its time, and what cutting off to microseconds and the profiler leave."""
LEAST_US = 0.15
"""No kernel takes less."""
_TOTAL_NOISE, _TOTAL_NOISE_US = 0.02, 0.2
"""Standard errors of an inference that was timed as a whole: of its time, and of the clock."""
_MODEL_ERROR, _MODEL_ERROR_US = 0.04, 0.05
"""Standard errors of a fitted model: of a kernel's time, and of its launch."""
_USUAL_PROFILER_US = 2.0
USUAL_FLOOR_US = 1.0
"""Microseconds of an inference apart from its kernels, before anything is known."""
_PROFILER_RANGE_US = (0.5, 4.5)
_SMALL_NETWORK_US = 1500.0


@dataclass(frozen=True)
class Ruler:
    """How to read the profiler.

    Attributes:
        profiler_us: Microseconds that the profiler itself adds to a kernel, by kind and format.
        network_floor_us: Microseconds of an inference apart from its kernels.
    """

    profiler_us: Mapping[str, float]
    network_floor_us: float = USUAL_FLOOR_US

    @classmethod
    def of(cls, table: SampleTable) -> Ruler:
        """By how much the profiler's times of a network add up to more than it takes without, in small networks."""
        kinds = _kinds(variants(table.workload))
        known = sorted(set(kinds))
        count = counts(table, kinds, known)
        seen = np.bincount(table.network, np.nan_to_num(table.microseconds), len(table.total_us))
        small = table.complete & (table.total_us < _SMALL_NETWORK_US)
        spread = 0.02 * table.total_us + 0.2 * np.sqrt(count.sum(1))
        excess = seen - table.total_us + USUAL_FLOOR_US - _USUAL_PROFILER_US * count.sum(1)
        shares = robust_ridge(count[small], excess[small], spread[small], prior=0.3)
        profiler_us = np.clip(_USUAL_PROFILER_US + shares, *_PROFILER_RANGE_US).tolist()
        return cls(dict(zip(known, profiler_us, strict=True)))

    def latency(self, table: SampleTable, believed: Floats | None = None) -> tuple[Floats, Floats]:
        """(kernels,) microseconds of the kernels in ``table``, and one standard error of each; NaN where unknown.

        Args:
            table: Timed kernels.
            believed: What a model says of them, NaN where it says nothing; it counts where the profiler cannot see, in
                the shortest.
        """
        share = [self.profiler_us.get(kind, _USUAL_PROFILER_US) for kind in _kinds(variants(table.workload))]
        latency: Floats = table.microseconds - np.array(share)
        variance = noise(np.maximum(latency, 0.0)) ** 2
        if believed is not None:
            doubt = np.where(np.isfinite(believed), (_MODEL_ERROR * believed) ** 2 + _MODEL_ERROR_US**2, np.inf)
            latency = (latency / variance + np.nan_to_num(believed) / doubt) / (1 / variance + 1 / doubt)
            variance = 1 / (1 / variance + 1 / doubt)
        return self._balanced(latency, variance, table), np.sqrt(variance)

    def _balanced(self, latency: Floats, variance: Floats, table: SampleTable) -> Floats:
        """Latencies that agree with what their networks take, as far as rulers can be trusted."""
        count = len(table.total_us)
        missing = table.total_us - self.network_floor_us - np.bincount(table.network, np.nan_to_num(latency), count)
        doubt = (_TOTAL_NOISE * table.total_us) ** 2 + _TOTAL_NOISE_US**2
        step = missing / (np.bincount(table.network, np.nan_to_num(variance), count) + doubt)
        step = np.where(table.complete, step, 0.0)
        balanced: Floats = np.maximum(latency + variance * step[table.network], LEAST_US)
        return balanced


def noise(latency: Floats) -> Floats:
    """One standard error of the times that a profiler gives of kernels, in microseconds."""
    spread: Floats = np.hypot(RELATIVE_NOISE * latency, NOISE_US)
    return spread


def counts(table: SampleTable, labels: NDArray[np.object_], known: Sequence[str]) -> Floats:
    """(samples, labels): how many kernels of each there are."""
    place = {label: index for index, label in enumerate(known)}
    count = np.zeros((len(table.total_us), len(known)))
    np.add.at(count, (table.network, np.array([place[label] for label in labels], np.int64)), 1)
    return count


def robust_ridge(matrix: Floats, target: Floats, spread: Floats, prior: float) -> Floats:
    """Least squares with a normal prior of width ``prior``; rows that miss by more than 3 spreads lose their weight."""
    solution: Floats = np.zeros(matrix.shape[1])
    for _ in range(8):
        miss = np.abs(target - matrix @ solution) / spread
        weight = np.minimum(1, 3 / np.maximum(miss, 1e-9)) / spread**2
        normal = (matrix * weight[:, None]).T @ matrix + np.eye(matrix.shape[1]) / prior**2
        solution = np.asarray(np.linalg.solve(normal, (matrix * weight[:, None]).T @ target), np.float64)
    return solution


def _kinds(names: Iterable[str]) -> NDArray[np.object_]:
    """Kind and format of variants: the nodes of one operator cost the profiler about the same."""
    return np.array([":".join(name.split(":")[:2]) for name in names], dtype=object)
