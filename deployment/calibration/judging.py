"""How far a latency model is off what it was not fitted to."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kneepoint.deployment.calibration.fitting import Fit
from kneepoint.deployment.calibration.samples import SampleTable
from kneepoint.hardware_models.latency_model import LatencyModel

Floats = NDArray[np.float64]
_LARGE_US = 5.0
"""Shorter kernels are a few of the profiler's steps long, so that much of their error is that of the ruler."""
_LEAST_COMMON = 0.01


@dataclass(frozen=True)
class HeldOut:
    """Errors on networks that nothing was fitted to; shares and errors are fractions.

    Attributes:
        networks: How many.
        kernels: In them, as far as they are known.
        coverage: The share of the kernels that have a price.
        kernel_mape: Mean absolute error of a kernel.
        large_kernel_mape: Of those that take at least 5 microseconds.
        weighted_kernel_error: Sum of absolute errors over sum of latencies.
        network_mape: Mean absolute error of a network.
        within_5: Share of networks predicted within 5 %.
        within_10: Share within 10 %.
    """

    networks: int
    kernels: int
    coverage: float
    kernel_mape: float
    large_kernel_mape: float
    weighted_kernel_error: float
    network_mape: float
    within_5: float
    within_10: float

    def to_json(self) -> dict[str, float]:
        """The figures, rounded to what they are good for."""
        return {name: round(value, 4) for name, value in asdict(self).items()}


def judge(fit: Fit, table: SampleTable) -> HeldOut:
    """The errors of ``fit`` on the samples in ``table``."""
    predicted, latency, known, priced = _compare(fit, table)
    errors = np.abs(predicted / latency - 1)
    large = known & (latency >= _LARGE_US)
    networks = np.abs(_network_errors(fit.model, table, predicted, priced))
    return HeldOut(
        networks=len(networks),
        kernels=int(known.sum()),
        coverage=float(priced.mean()) if len(priced) else 0.0,
        kernel_mape=_mean(errors[known]),
        large_kernel_mape=_mean(errors[large]),
        weighted_kernel_error=float(np.abs(predicted - latency)[known].sum() / max(latency[known].sum(), 1e-9)),
        network_mape=_mean(networks),
        within_5=_mean(networks <= 0.05),
        within_10=_mean(networks <= 0.10),
    )


def with_errors(fit: Fit, table: SampleTable) -> LatencyModel:
    """The model of ``fit`` with standard errors that explain how far it is off the samples in ``table``.

    Errors of kernels are independent; what the networks miss beyond that, their kernels share.
    """
    predicted, latency, known, priced = _compare(fit, table)
    logs = np.log(np.maximum(predicted, 1e-3) / latency)
    weight = np.where(known, latency, 0.0)
    kernel = float(np.sqrt(np.average(np.clip(logs, -1, 1)[known] ** 2, weights=weight[known]))) if known.any() else 1.0
    networks = _network_errors(fit.model, table, predicted, priced)
    count = len(table.total_us)
    own = np.sqrt(np.bincount(table.network, (kernel * predicted) ** 2, count)) / np.maximum(table.total_us, 1e-9)
    common = float(np.median(np.abs(networks)) * 1.4826) if len(networks) else 1.0  # robust standard deviation
    common = float(np.sqrt(max(common**2 - float(np.median(own)) ** 2, _LEAST_COMMON**2)))
    return replace(fit.model, kernel_error=round(kernel, 4), common_error=round(common, 4))


def _compare(fit: Fit, table: SampleTable) -> tuple[Floats, Floats, NDArray[np.bool_], NDArray[np.bool_]]:
    """Predicted and true microseconds of all kernels, which of them have both, and which have a price."""
    predicted, priced = fit.model.predict(table.workload)
    latency, _ = fit.ruler.latency(table)
    return predicted, latency, priced & np.isfinite(latency), priced


def _network_errors(model: LatencyModel, table: SampleTable, predicted: Floats, priced: NDArray[np.bool_]) -> Floats:
    """Relative errors of the networks all of whose kernels are known and have a price."""
    count = len(table.total_us)
    whole = table.complete & (np.bincount(table.network, ~priced, count) == 0)
    totals = np.bincount(table.network, predicted, count) + model.network_floor_us
    errors: Floats = totals[whole] / table.total_us[whole] - 1
    return errors


def _mean(values: NDArray[np.float64] | NDArray[np.bool_]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
