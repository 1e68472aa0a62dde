"""Adapting a known device to another one by the latencies of a few whole networks.

Every part of a known device's prices (``base_prices.PARTS``) gets a factor. With few measurements not every factor can
be told from the others, so their logarithms are drawn towards a common one, by a strength that cross-validation
chooses (ridge regression: A. Hoerl, R. Kennard, "Ridge regression", Technometrics 12(1), 1970), on logarithms of
latencies, so that small networks count as large ones do, with outliers weighed down (P. Huber, "Robust estimation of a
location parameter", Annals of Mathematical Statistics 35(1), 1964). That a search for another device does best by
adapting a known one is an old observation (for instance H. Lee et al., "HELP: hardware-adaptive efficient latency
prediction for NAS via meta-learning", NeurIPS 2021).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold

from kneepoint.deployment.bundles.base_prices import PARTS, UNPRICED, BasePrices
from kneepoint.hardware_models.device import Device
from kneepoint.tasks.errors import DeviceError

Floats = NDArray[np.float64]
FEWEST = 20
STRENGTHS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 1e6)
"""Of the pull towards a common factor; at the last there is one factor for everything."""
_FOLDS = 5
_USUAL_ERROR = 0.1
"""Of a prediction: a latency that is less certain counts less than half."""
_FREE = 0.01
"""Of the pull, for what a device has no price for: its bound says nothing about another device."""
_STEPS, _LONGEST_STEP = 25, 1.0
_SETTLED = 1e-6
_INLIER, _LEAST_SPREAD = 1.5, 0.02
"""Residuals beyond so many spreads lose weight; a spread is taken to be no smaller."""


@dataclass(frozen=True)
class Validation:
    """Errors on networks of kinds that the factors were not fitted to; fractions.

    Attributes:
        networks: How many.
        rms_log: Root mean square of the logarithms of predicted over measured.
        mape: Mean absolute error.
        within_10: Share predicted within 10 %.
    """

    networks: int
    rms_log: float
    mape: float
    within_10: float

    @classmethod
    def of(cls, residuals: Floats, weight: Floats) -> Validation:
        """Of logarithms of predicted over measured, and how much each counts."""
        errors = np.abs(np.exp(residuals) - 1)
        rms = float(np.sqrt(np.average(residuals**2, weights=weight)))
        means = (float(np.average(values, weights=weight)) for values in (errors, errors <= 0.1))
        return cls(len(residuals), rms, *means)

    def to_json(self) -> dict[str, float]:
        """The figures."""
        return {"networks": self.networks, **{name: round(getattr(self, name), 4) for name in _FIGURES}}


_FIGURES = ("rms_log", "mape", "within_10")


@dataclass(frozen=True, eq=False)
class Adapted:
    """A known device with factors.

    Attributes:
        prices: Of the device.
        factors: (parts,) what each part's time is multiplied by.
        strength: Of the pull towards one factor.
        validation: By cross-validation.
        one_factor: The same, for one factor alone.
    """

    prices: BasePrices
    factors: Floats
    strength: float
    validation: Validation
    one_factor: Validation


@dataclass(frozen=True, eq=False)
class Latencies:
    """What was measured of some networks.

    Attributes:
        log_us: (networks,) logarithms of microseconds.
        weight: (networks,) how much each counts, at most 1: less, the less certain its latency is.
        kinds: (networks,) what each is like: folds of a cross-validation part kinds, never networks of one.
    """

    log_us: Floats
    weight: Floats
    kinds: Sequence[str]

    @classmethod
    def of(cls, total_us: Floats, doubt: Floats, kinds: Sequence[str]) -> Latencies:
        """Of latencies.

        Args:
            total_us: (networks,) microseconds.
            doubt: (networks,) a standard error of each, as a fraction.
            kinds: (networks,)
        """
        return cls(np.log(total_us), 1 / (1 + (np.asarray(doubt) / _USUAL_ERROR) ** 2), kinds)

    def some(self, chosen: NDArray[np.bool_]) -> Latencies:
        """Of some of the networks alone."""
        kinds = [kind for kind, taken in zip(self.kinds, chosen, strict=True) if taken]
        return Latencies(self.log_us[chosen], self.weight[chosen], kinds)


def adapt(devices: Iterable[Device], prices: Callable[[Device], BasePrices], measured: Latencies) -> list[Adapted]:
    """Every device, adapted; the one with the smallest cross-validated error first.

    Args:
        devices: Known ones.
        prices: Of the measured networks on one of them.
        measured: Those networks on the device that is to be described.

    Raises:
        DeviceError: If there are fewer than 20 networks, fewer than two kinds of them, or no device.
    """
    kinds = measured.kinds
    if len(kinds) < FEWEST:
        raise DeviceError(
            f"adapting a known device takes {FEWEST} networks or more; the results have {len(kinds)}: run run.py "
            "again until it has measured enough"
        )
    if len(set(kinds)) < 2:
        raise DeviceError(
            f"cross-validation takes networks of two kinds or more; all {len(kinds)} are {kinds[0]}: measure more"
        )
    found = [_adapted(prices(device), measured) for device in devices]
    if not found:
        raise DeviceError("there is no known device to adapt: name one with --base")
    return sorted(found, key=lambda one: one.validation.rms_log)


def fit_factors(prices: BasePrices, measured: Latencies, strength: float) -> Floats:
    """(parts,) the factors under which the networks take what was measured, as far as ``strength`` lets them differ.

    Gauss-Newton steps on the common logarithm and each part's own, in which far residuals weigh less.
    """
    own, log_us = np.zeros(len(PARTS)), measured.log_us
    pull = np.full(len(PARTS), strength)
    pull[UNPRICED] *= _FREE if strength < STRENGTHS[-1] else 1.0
    common = float(np.median(log_us - np.log(prices.total_us(np.ones(len(PARTS))))))
    penalty = np.diag([0.0, *pull])
    for _ in range(_STEPS):
        shares = prices.shares(np.exp(common + own))
        total = shares.sum(1)
        residual = log_us - np.log(total)
        slope = np.column_stack((np.ones(len(total)), shares / total[:, None]))
        weight = measured.weight * _weights(residual)
        pulled = np.concatenate(([0.0], -pull * own))
        normal = (slope * weight[:, None]).T @ slope + penalty
        step = np.linalg.lstsq(normal, slope.T @ (weight * residual) + pulled)[0]
        step = step * min(1.0, _LONGEST_STEP / max(1e-12, float(np.abs(step).max())))
        common, own = common + float(step[0]), own + step[1:]
        if np.abs(step).max() < _SETTLED:
            break
    factors: Floats = np.exp(common + own)
    return factors


def kind_of(style: str, formats: Iterable[str]) -> str:
    """What a network is like: how it was drawn, and the formats of its products."""
    names = sorted({_numbers(name) for name in formats})
    return f"{style} {' and '.join(names) or 'without products'}"


def _numbers(format_: str) -> str:
    return "int8" if format_.startswith("dynamic") else "packed" if format_.startswith("packed") else format_


def _adapted(prices: BasePrices, measured: Latencies) -> Adapted:
    found = [Validation.of(out_of_fold(prices, measured, strength), measured.weight) for strength in STRENGTHS]
    best = min(range(len(STRENGTHS)), key=lambda place: found[place].rms_log)
    factors = fit_factors(prices, measured, STRENGTHS[best])
    return Adapted(prices, factors, STRENGTHS[best], found[best], found[-1])


def out_of_fold(prices: BasePrices, measured: Latencies, strength: float) -> Floats:
    """(networks,) logarithms of predicted over measured, each predicted without networks of its kind."""
    found, kinds = np.zeros(len(measured.kinds)), list(measured.kinds)
    folds = GroupKFold(min(_FOLDS, len(set(kinds))))
    for _, held in folds.split(found, groups=kinds):
        out = np.zeros(len(found), bool)
        out[held] = True
        factors = fit_factors(prices.some(~out), measured.some(~out), strength)
        found[out] = np.log(prices.some(out).total_us(factors)) - measured.log_us[out]
    return found


def _weights(residual: Floats) -> Floats:
    spread = max(_LEAST_SPREAD, 1.4826 * float(np.median(np.abs(residual))))
    weights: Floats = np.minimum(1.0, _INLIER * spread / np.maximum(np.abs(residual), 1e-12))
    return weights
