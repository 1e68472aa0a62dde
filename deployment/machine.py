"""The machine that measurements are made on: what it is, and the cores that they are pinned to."""

from __future__ import annotations

from pathlib import Path

import onnxruntime

from kneepoint.deployment.device_program import fastest_cores, processor_name, usable_cores
from kneepoint.tasks.errors import InputError

__all__ = ["cores_for", "machine_name", "usable_cores"]

_SYSTEM = Path("/sys/devices/system/cpu")


def machine_name() -> str:
    """Processor, cores and runtime: latencies that were measured where this differs do not compare."""
    return f"{processor_name()}, {len(usable_cores())} cores, onnxruntime {onnxruntime.__version__}"


def cores_for(threads: int, system: Path = _SYSTEM) -> list[int]:
    """One core for every thread: the fastest ones, one of each pair of siblings, the last ones first.

    Args:
        threads: Of one inference.
        system: Where the kernel describes the cores.

    Raises:
        InputError: If there are not as many cores, or no thread at all.
    """
    usable = usable_cores()
    if not 1 <= threads <= len(usable):
        raise InputError(
            f"a measurement needs at least one thread, and a core for every thread; got {threads} threads, and this "
            f"process may use {len(usable)} cores"
        )
    return fastest_cores(threads, system)
