"""The device file of an adapted device: a known one, every part of whose prices is scaled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from kneepoint.deployment.bundles.base_prices import (
    BANDWIDTH,
    INFERENCE,
    UNPRICED,
    Floats,
    group_of,
    launch_of,
)
from kneepoint.deployment.bundles.few_shot import Adapted
from kneepoint.hardware_models.device import DEFAULT, Device, Rates
from kneepoint.hardware_models.kernels import KERNEL_KINDS
from kneepoint.hardware_models.latency_model import LatencyModel, VariantModel
from kneepoint.hardware_models.roofline import MAC_KINDS

ADAPTED = "Adapted from device "
"""What the source of an adapted device's error begins with."""
_PRODUCTS = tuple(kind for kind in KERNEL_KINDS if kind in MAC_KINDS)
_OTHERS = tuple(kind for kind in KERNEL_KINDS if kind not in MAC_KINDS)


def adapted_device(adapted: Adapted, threads: int, update: Mapping[str, Any], sources: Mapping[str, str]) -> Device:
    """The device that prices networks as the factors say.

    Args:
        adapted: A known device, and factors of its parts.
        threads: That the factors were fitted at.
        update: Fields that are known of the new device itself.
        sources: Where those are from; of all others they say from which device they were scaled.
    """
    base, factors, model = adapted.prices.device, adapted.factors, adapted.prices.model
    slower = float(factors[BANDWIDTH])
    fields = {
        **base.model_dump(),
        "threads": threads,
        "batch": 1,
        "rates": _scaled(base.rates, _PRODUCTS, factors),
        "element_rates": _scaled(base.element_rates, _OTHERS, factors),
        "unpacking": {name: rate / float(factors[group_of("linear", name)]) for name, rate in base.unpacking.items()},
        "scalar_rate": base.scalar_rate / float(factors[UNPRICED]),
        "bandwidth_gb_s": base.bandwidth_gb_s / slower,
        "caches": [{"kb": level.kb, "bandwidth_gb_s": level.bandwidth_gb_s / slower} for level in base.caches],
        "floor_us": _scaled_floors(base, factors),
        "network_floor_us": base.network_floor_us * float(factors[INFERENCE]),
        "power": None,
        "power_mode": None,
        "link_mb_s": None,
        "relative_error": max(0.001, adapted.validation.rms_log),
        "calibration": _calibration(adapted, model, threads) if model is not None else None,
        **update,
    }
    scaled = f"Scaled from device {base.name!r} by whole-network latencies; its source: "
    known = {key: scaled + text for key, text in base.sources.items() if fields.get(key) is not None}
    fields["sources"] = {**known, **sources}
    return Device.model_validate(fields)


def is_adapted(device: Device) -> bool:
    """Whether a device was adapted from another one: a guess is no base for the next."""
    return device.sources.get("relative_error", "").startswith(ADAPTED)


def scaled_model(model: LatencyModel, factors: Floats, common_error: float) -> LatencyModel:
    """A fitted model whose kernels take the factor of launching for the least of their variant, and that of their
    group for what is beyond it.
    """  # noqa: D205 - one sentence, and longer than a line
    fitted = {name: _scaled_variant(name, variant, factors) for name, variant in model.variants.items()}
    floor = model.network_floor_us * float(factors[INFERENCE])
    return LatencyModel(fitted, floor, model.kernel_error, round(common_error, 4))


def _scaled_variant(name: str, variant: VariantModel, factors: Floats) -> VariantModel:
    kind, format_ = name.split(":")[:2]
    gain, launch = float(factors[group_of(kind, format_)]), float(factors[launch_of(kind)])
    return replace(
        variant,
        coefficients=variant.coefficients * gain,
        lowest_us=variant.lowest_us * launch,
        shift_us=gain * variant.shift_us + (launch - gain) * variant.lowest_us,
    )


def _calibration(adapted: Adapted, model: LatencyModel, threads: int) -> dict[str, Any]:
    scaled = scaled_model(model, adapted.factors, adapted.validation.rms_log)
    held_out = {str(threads): adapted.validation.to_json()}
    return {"threads": {str(threads): scaled.to_json()}, "held_out": held_out}


def _scaled(rates: Rates, kinds: tuple[str, ...], factors: Floats) -> dict[str, dict[str, float]]:
    """Rates of every kind by name: those that one default stood for are scaled by factors of their own."""
    found: dict[str, dict[str, float]] = {}
    for kind in kinds:
        table = rates.get(kind, rates.get(DEFAULT, {}))
        if table:
            found[kind] = {
                str(name): _rounded(rate / float(factors[group_of(kind, name)])) for name, rate in table.items()
            }
    return found


def _scaled_floors(base: Device, factors: Floats) -> dict[str, float]:
    """Floors of every kind by name, for the same reason; and the default, which a file needs."""
    floors = {kind: base.floor_us.get(kind, base.floor_us[DEFAULT]) for kind in KERNEL_KINDS}
    scaled = {kind: _rounded(floor * float(factors[launch_of(kind)])) for kind, floor in floors.items()}
    return {DEFAULT: max(scaled.values()), **scaled}


def _rounded(value: float) -> float:
    return float(np.format_float_positional(value, 6, fractional=False))
