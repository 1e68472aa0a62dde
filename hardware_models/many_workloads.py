"""Workloads of many networks together, every distinct kernel once: priced on a device all at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from kneepoint.hardware_models.arena import arena_use
from kneepoint.hardware_models.cost_model import CostModel
from kneepoint.hardware_models.device import Memory
from kneepoint.hardware_models.liveness import Buffers
from kneepoint.hardware_models.price_table import Floats, rows_of
from kneepoint.hardware_models.workload import Integers, Workload

ArenaRules = tuple[int, float, int, bool, bool]
"""What of a device's memory decides how much of the runtime's arena is touched."""


def arena_rules(memory: Memory) -> ArenaRules:
    """Alignment, KiB of a region, growth, whether the second inference is planned anew, whether inputs are integers."""
    return (memory.alignment, memory.region_kb, memory.growth, memory.replanned, memory.integer_inputs)


@dataclass(frozen=True, eq=False)
class ManyWorkloads:
    """Workloads on one runtime.

    Attributes:
        keys: What each is called, in order; none twice.
        kernels: The distinct kernels, without the places they stand in.
        surroundings: (distinct, 8) int64, those places.
        rows: (kernels of all workloads,) int64, which kernel each is.
        places: (kernels of all workloads,) int64, where it stands.
        lengths: (workloads,) int64, how many kernels belong to each.
        storage_bytes: (workloads,) int64, all constants in the artifact.
        resident_bytes: (workloads,) int64, all constants in memory.
        buffers: The activations of each.
        touched: (workloads,) int64, bytes of an arena that activations touch, where it is known by the arena's rules.
    """

    keys: tuple[str, ...]
    kernels: Workload
    surroundings: Integers
    rows: Integers
    places: Integers
    lengths: Integers
    storage_bytes: Integers
    resident_bytes: Integers
    buffers: tuple[Buffers, ...]
    touched: Mapping[ArenaRules, Integers] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True, eq=False)
class ManyCosts:
    """Arrays of one entry a workload; each is what ``CostModel.cost`` says of it.

    Attributes:
        latency_ms: Milliseconds of one inference.
        latency_ms_error: One standard error.
        energy_mj: Millijoules; None where the device's power is unknown.
        peak_memory_bytes: What is resident at the peak.
        storage_bytes: Constants in the artifact.
    """

    latency_ms: Floats
    latency_ms_error: Floats
    energy_mj: Floats | None
    peak_memory_bytes: Integers
    storage_bytes: Integers


def cost_of_many(model: CostModel, workloads: ManyWorkloads) -> ManyCosts:
    """What all of ``workloads``, whose fusion rules are those of the model's device, cost there.

    Raises:
        DeviceError: If a kernel has no price and the model is told to refuse.
    """
    memory = model.device.memory
    latency, error, energy = model.latencies_of_many(*_priced_rows(model, workloads), workloads.lengths)
    touched = workloads.touched.get(arena_rules(memory))
    if touched is None:
        touched = np.array([arena_use(buffers, memory).touched_bytes for buffers in workloads.buffers], np.int64)
    peak = touched if memory.flash_mb else touched + workloads.resident_bytes
    return ManyCosts(latency, error, energy, peak, workloads.storage_bytes)


def _priced_rows(model: CostModel, workloads: ManyWorkloads) -> tuple[Workload, Integers]:
    """The kernels that have a price each, and which of them every kernel is."""
    if not model.contextual:
        return workloads.kernels, workloads.rows
    count = max(len(workloads.surroundings), 1)
    pairs, rows = np.unique(workloads.rows * count + workloads.places, return_inverse=True)
    kernels = replace(
        rows_of(workloads.kernels, (pairs // count).tolist()), surroundings=workloads.surroundings[pairs % count]
    )
    return kernels, rows.astype(np.int64)
