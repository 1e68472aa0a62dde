"""What a device file says of a machine that kernels do not show: memory, caches and instructions."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from kneepoint.hardware_models.device import Cache

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_FLAGS = Path("/proc/cpuinfo")
_LARGE_KB = 128 * 1024
_REPEATS = 7


def main_memory_mb() -> float:
    """Physical memory, 10^6 bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e6


def main_memory_gb_s() -> float:
    """10^9 bytes a second that one thread copies within main memory, what it reads and what it writes."""
    return _copy_gb_s(_LARGE_KB)


def caches(slowest: float, system: Path = _CACHES) -> tuple[Cache, ...]:
    """The levels of cache the system reports, with the rate at which one thread copies within half of each.

    Args:
        slowest: 10^9 bytes a second of main memory; no level is given less.
        system: Where the kernel describes them.
    """
    sizes = sorted(set(_cache_sizes_kb(system)))
    rates = np.minimum.accumulate([_copy_gb_s(max(1, size // 4)) for size in sizes] or [slowest])
    return tuple(
        Cache(kb=size, bandwidth_gb_s=max(float(rate), slowest)) for size, rate in zip(sizes, rates, strict=False)
    )


def saturates(flags: Path = _FLAGS) -> bool | None:
    """Whether sums of two products of bytes saturate: on x86 without VNNI; None where that is not known."""
    try:
        text = flags.read_text()
    except OSError:
        return None
    words = set(text.split())
    if not words & {"sse2", "avx"}:
        return False  # no x86
    return not words & {"avx512_vnni", "avx_vnni"}


def _cache_sizes_kb(system: Path) -> Iterator[int]:
    for level in sorted(system.glob("index*")):
        try:
            kind, size = (level / "type").read_text().strip(), (level / "size").read_text().strip()
        except OSError:
            continue
        if kind in ("Data", "Unified") and size.endswith("K"):
            yield int(size[:-1])


def _copy_gb_s(kb: int) -> float:
    """The best of several copies, source and target together ``2 kb`` large."""
    source = np.ones(kb * 1024, np.uint8)
    target = np.empty_like(source)
    copies = max(1, _LARGE_KB // kb // 4)
    best = min(_seconds(source, target, copies) for _ in range(_REPEATS))
    return 2 * source.nbytes * copies / best / 1e9


def _seconds(source: np.ndarray, target: np.ndarray, copies: int) -> float:
    start = time.perf_counter()
    for _ in range(copies):
        np.copyto(target, source)
    return time.perf_counter() - start
