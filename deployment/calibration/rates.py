"""Peak rates and floors, read off timed kernels: the roofline for what no fit knows."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kneepoint.deployment.calibration.samples import Sample, SampleTable
from kneepoint.hardware_models.kernels import FORMATS, KERNEL_KINDS

_USUAL_PROFILER_US = 2.0
_LEAST_US = 0.2
_FEWEST = 5


def peak_rates(table: SampleTable) -> dict[str, Any]:
    """``rates`` and ``element_rates`` of a device file, in 10^9 operations a second, by kind and format."""
    work: dict[str, dict[str, dict[str, list[float]]]] = {"rates": {}, "element_rates": {}}
    workload, latency = table.workload, np.maximum(table.microseconds - _USUAL_PROFILER_US, _LEAST_US)
    for row in np.flatnonzero(np.isfinite(latency)):
        kind, format_ = KERNEL_KINDS[workload.kind[row]], FORMATS[workload.format[row]]
        group, done = ("rates", workload.macs[row]) if workload.macs[row] else ("element_rates", workload.elements[row])
        by_format = work[group].setdefault(kind, {})
        by_format.setdefault(format_, []).append(float(done) / float(latency[row]) / 1e3)
    found = {group: {kind: _peaks(formats) for kind, formats in kinds.items()} for group, kinds in work.items()}
    rates: dict[str, Any] = {group: {k: v for k, v in kinds.items() if v} for group, kinds in found.items()}
    rates["element_rates"]["default"] = _typical(rates["element_rates"])
    return rates


def floors_us(table: SampleTable) -> dict[str, float]:
    """Microseconds that no kernel of a kind falls below, and ``default`` for all others."""
    times: dict[str, list[float]] = defaultdict(list)
    for code, latency in zip(table.workload.kind, table.microseconds, strict=True):
        if math.isfinite(latency):
            times[KERNEL_KINDS[code]].append(max(latency - _USUAL_PROFILER_US, _LEAST_US))
    floors = {kind: round(float(np.percentile(found, 5)), 3) for kind, found in times.items() if len(found) >= _FEWEST}
    return {"default": round(float(np.median(list(floors.values()) or [1.0])), 3), **floors}


def thread_exponent(samples: Sequence[Sample], threads: Sequence[int]) -> float | None:
    """How latency falls with threads: the exponent between the smallest and the largest count; None for one count."""
    return gain_exponent(
        {count: {s.index: s.total_us for s in samples if s.threads == count and s.held_out} for count in threads}
    )


def gain_exponent(totals: Mapping[int, Mapping[int, float]]) -> float | None:
    """The same, of latencies by thread count and network; None where no network has both."""
    low, high = min(totals), max(totals)
    both = sorted(totals[low].keys() & totals[high].keys())
    if low == high or not both:
        return None
    gains = [math.log(totals[low][index] / totals[high][index]) / math.log(high / low) for index in both]
    return round(float(np.clip(np.median(gains), 0, 1)), 3)


def _peaks(formats: dict[str, list[float]]) -> dict[str, float]:
    return {name: float(f"{np.percentile(found, 90):.4g}") for name, found in formats.items() if len(found) >= _FEWEST}


def _typical(kinds: dict[str, dict[str, float]]) -> dict[str, float]:
    """For kinds that were not seen: the median over those that were."""
    by_format: dict[str, list[float]] = defaultdict(list)
    for formats in kinds.values():
        for name, rate in formats.items():
            by_format[name].append(rate)
    return {name: float(f"{np.median(found):.4g}") for name, found in by_format.items()}
