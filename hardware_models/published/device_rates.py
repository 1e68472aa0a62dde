"""The fitted part of a device file: refined rates of one or two systems, with honest errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kneepoint.hardware_models.kernel_classes import KERNEL_CLASSES, WINOGRAD
from kneepoint.hardware_models.published.hierarchy import Hierarchy
from kneepoint.hardware_models.published.systems import System

_MS_TO_GIGA = 1e-6
"""An operation a millisecond is so many billions a second."""
_NOTHING = 1e-4


def refined_rates(fit: Hierarchy, system: System, relative_error: float) -> dict[str, Any]:
    """The content of ``RefinedRates`` for one system.

    Args:
        fit: Of the world that the system belongs to.
        system: One of its systems.
        relative_error: One standard error on families of networks that nothing was fitted to.
    """
    costs, parts = fit.costs_ms(system)
    classes = {
        name: {"rate": _rounded(_MS_TO_GIGA / costs[place]), **_parts(parts[place])}
        for place, name in enumerate(KERNEL_CLASSES)
        if system.has_winograd or place != WINOGRAD
    }
    return {"launch_us": _rounded(costs[-2] * 1e3), "classes": classes, "relative_error": round(relative_error, 3)}


def inference_us(fit: Hierarchy, systems: Sequence[System]) -> float:
    """Microseconds of an inference apart from its kernels: the mean of what was fitted to floats and to bytes."""
    return _rounded(float(np.mean([fit.costs_ms(system)[0][-1] for system in systems])) * 1e3)


def _parts(parts: np.ndarray) -> Mapping[str, float]:
    named = zip(("input", "output", "weight"), parts.tolist(), strict=True)
    return {name: _rounded(value) for name, value in named if value > _NOTHING}


def _rounded(value: float) -> float:
    return float(np.format_float_positional(value, 4, fractional=False))
