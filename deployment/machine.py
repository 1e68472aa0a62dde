"""The machine that measurements are made on: what it is, and the cores that they are pinned to."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import onnxruntime

from kneepoint.tasks.errors import InputError

_SYSTEM = Path("/sys/devices/system/cpu")


def machine_name() -> str:
    """Processor, cores and runtime: latencies that were measured where this differs do not compare."""
    described = _read(Path("/proc/cpuinfo")).splitlines()
    names = (line.partition(":")[2].strip() for line in described if line.startswith(("model name", "Model")))
    processor = next(names, "") or platform.processor() or platform.machine()
    return f"{processor}, {len(usable_cores())} cores, onnxruntime {onnxruntime.__version__}"


def usable_cores() -> list[int]:
    """The cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def cores_for(threads: int, system: Path = _SYSTEM) -> list[int]:
    """One core for every thread: the fastest ones, one of each pair of siblings, the last ones first.

    A scheduler puts a busy thread on a fast core, and two threads on two physical cores. The first cores serve most
    interrupts.

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
    siblings = [_read(system / f"cpu{core}" / "topology" / "thread_siblings_list") or str(core) for core in usable]
    costs = {
        core: (-int(_read(system / f"cpu{core}" / "cpu_capacity") or 0), siblings[:index].count(siblings[index]), -core)
        for index, core in enumerate(usable)
    }
    return sorted(sorted(usable, key=costs.__getitem__)[:threads])


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
