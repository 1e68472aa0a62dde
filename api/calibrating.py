"""``kneepoint devices calibrate``: its progress, and what it says in the end."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from kneepoint.deployment.calibration import Calibrated, calibrate
from kneepoint.deployment.calibration import Progress as Timed

_NOISY = 0.2
"""A larger share of repeated timings is worth a warning."""


def calibrate_with_progress(name: str, minutes: float, threads: Sequence[int] | None, seed: int) -> Calibrated:
    """Calibrate, with a bar on standard error if that is a terminal.

    Raises:
        DeviceError: As :func:`kneepoint.deployment.calibration.calibrate` does.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("calibrating", total=60 * minutes)

        def show(timed: Timed) -> None:
            bar.update(task, completed=timed.seconds, description=_progress_line(timed))

        return calibrate(name, minutes, threads, seed, show)


def facts_of(calibrated: Calibrated) -> dict[str, Any]:
    """What ``--json`` prints."""
    return {
        "device": calibrated.device.name,
        "path": str(calibrated.path),
        "fusion": list(calibrated.device.fusion),
        "held_out": calibrated.held_out,
        "measured": calibrated.measured,
    }


def lines_of_calibration(calibrated: Calibrated) -> Iterator[str]:
    """What people read."""
    measured = calibrated.measured
    yield (
        f"{calibrated.path}: {measured['machine']}; {measured['networks']} networks with {measured['kernels']} kernels "
        f"timed in {measured['minutes']} minutes"
    )
    if measured["repeated"] > _NOISY:
        yield (
            f"THE MACHINE WAS NOISY: {measured['repeated']:.0%} of the timings were thrown away; stop what else runs, "
            "and calibrate again"
        )
    for count, errors in calibrated.held_out.items():
        yield (
            f"{count} thread(s), on {errors['networks']} networks that nothing was fitted to: within 10 % "
            f"{errors['within_10']:.0%}, within 5 % {errors['within_5']:.0%}, mean error {errors['network_mape']:.1%}; "
            f"their kernels of 5 us and more {errors['large_kernel_mape']:.1%}, all kernels {errors['kernel_mape']:.1%}"
        )


def _progress_line(timed: Timed) -> str:
    return f"{timed.networks} networks, {timed.kernels} kernels, {timed.repeated:.0%} repeated"
