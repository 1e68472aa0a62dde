"""What must be true of a device's predictions, and whether it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.hardware_models_files import ROOT
from benchmarks.hardware_models_judging import Facts
from kneepoint.hardware_models import Device

WITHIN_10, WITHIN_5, TAU, ORDER = 0.95, 0.80, 0.95, 0.98
KERNEL_MAPE = 0.08
DEVICE = "raspberry-pi-4b"
SPEED = ("--policies", "131072", "--device", DEVICE)
"""Of pricing_speed.py: where prices depend on what ran before, as on a calibrated device, every policy is lowered."""


@dataclass(frozen=True)
class Bar:
    """One thing that must be true.

    Attributes:
        name: What.
        reached: Whether it is.
        figure: What was found.
    """

    name: str
    reached: bool
    figure: str


def network_bars(found: Facts, prices_differ: int) -> list[Bar]:
    """Of whole networks.

    Args:
        found: Of all cases.
        prices_differ: Cases whose network and policy are priced otherwise than their file.
    """
    order = f"{found.order:.1%} of {found.pairs} pairs, {found.ties} more too close to tell"
    differing = f"{prices_differ} of {found.cases} cases differ"
    return [
        Bar(f"whole networks: {WITHIN_10:.0%} within 10 %", found.within_10 >= WITHIN_10, f"{found.within_10:.1%}"),
        Bar(f"whole networks: {WITHIN_5:.0%} within 5 %", found.within_5 >= WITHIN_5, f"{found.within_5:.1%}"),
        Bar(f"Kendall's tau among variants of one network: {TAU}", found.tau >= TAU, f"{found.tau:.3f}"),
        Bar(f"whether int8 is faster than fp32: {ORDER:.0%} right", found.order >= ORDER, order),
        Bar("a network with its policy costs what its file costs", prices_differ == 0, differing),
    ]


def kernel_bars(device: Device) -> list[Bar]:
    """Of single kernels that were never sampled, as the calibration found: one bar a thread count.

    The bar is held against the mean over all kernels. What the profiler says of the shortest is mostly its resolution
    of a microsecond, so the figure names the mean over the others, too.
    """
    name = f"single kernels never sampled: mean error of {KERNEL_MAPE:.0%}"
    if device.calibration is None or not device.calibration.held_out:
        return [Bar(name, False, "the device file says nothing of them")]
    return [
        Bar(f"{name}, threads {threads}", found["kernel_mape"] <= KERNEL_MAPE, _kernel_errors(found))
        for threads, found in device.calibration.held_out.items()
    ]


def _kernel_errors(found: Mapping[str, float]) -> str:
    large, weighted = found["large_kernel_mape"], found["weighted_kernel_error"]
    return (
        f"{found['kernel_mape']:.1%} of {found['kernels']:,} kernels ({large:.1%} of those of 5 us and more, "
        f"{weighted:.1%} weighted by time)"
    )


def speed_bars() -> list[Bar]:
    """Of how fast prices are, as ``benchmarks/pricing_speed.py`` finds."""
    command = [sys.executable, "-m", "benchmarks.pricing_speed", *SPEED]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(  # noqa: S603 - ours
        command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False
    )
    if not done.stdout:
        why = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return [Bar("speed of pricing", False, f"benchmarks/pricing_speed.py failed: {why[:200]}")]
    found = json.loads(done.stdout)
    figures = (
        f"{found['kernels_per_second']:,}",
        f"{found['policy']['amortized_us']:.1f} us over {found['policy']['policies']:,} random policies on {DEVICE}, "
        f"of which {found['policy']['lowered']:,} had to be lowered; {found['policy']['once_learned_us']:.1f} us once "
        "that is done",
        f"{found['policy']['equal_share']:.1%}",
        f"{found['device_load_ms']:.1f} ms",
    )
    return [Bar(name, reached, figure) for (name, reached), figure in zip(found["bars"].items(), figures, strict=True)]
