"""What a device file says of a machine that kernels do not show: memory, caches and instructions."""

from __future__ import annotations

from pathlib import Path

from kneepoint.deployment.device_program import cache_levels, main_memory_gb_s, main_memory_mb, saturates
from kneepoint.hardware_models.device import Cache

__all__ = ["caches", "main_memory_gb_s", "main_memory_mb", "saturates"]

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


def caches(slowest: float, system: Path = _CACHES) -> tuple[Cache, ...]:
    """The levels of cache the system reports, with the rate at which one thread copies within half of each.

    Args:
        slowest: 10^9 bytes a second of main memory; no level is given less.
        system: Where the kernel describes them.
    """
    return tuple(Cache(kb=size, bandwidth_gb_s=rate) for size, rate in cache_levels(slowest, system))
