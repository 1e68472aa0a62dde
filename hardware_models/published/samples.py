"""Published latencies of networks of the zoo, as what a fit sees: the work of every class of kernels."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from kneepoint.hardware_models.kernel_classes import CONVOLUTION, KERNEL_CLASSES, WINOGRAD, WORK, class_codes, work
from kneepoint.hardware_models.published.latencies import PublishedLatency, published_latencies
from kneepoint.hardware_models.published.systems import Precision, System, by_system
from kneepoint.hardware_models.workload import Workload
from kneepoint.hardware_models.zoo.registry import NETWORKS, build, find
from kneepoint.tasks.errors import DeviceError

Floats = NDArray[np.float64]
_LARGEST_BATCH = 8
_POSTPROCESSED = ("ruy", "edgetpu", "onnxruntime")
"""Families of runtimes whose detectors end with suppressing boxes on the processor, in the network's own file:
TFLite_Detection_PostProcess of TensorFlow Lite's, loops of ONNX Model Zoo's. The zoo's tables have no such kernels."""


@dataclass(frozen=True, eq=False)
class Sample:
    """A network on a system.

    Attributes:
        system: That ran it.
        network: Its name in the zoo.
        family: Of the network.
        batch: Samples of one inference.
        latency_ms: The median of what was published.
        power_w: The median of the watts that were published with them, or None.
        spread: Largest over smallest of what was published.
    """

    system: System
    network: str
    family: str
    batch: int
    latency_ms: float
    power_w: float | None
    spread: float

    @property
    def work(self) -> Floats:
        """(classes, 4): the parts of the work of all its kernels."""
        return self._facts[0]

    @property
    def kernels(self) -> int:
        """How many there are."""
        return self._facts[1]

    @property
    def streamed_ms(self) -> float:
        """Milliseconds of reading the weights that the accelerator has no room for."""
        memory = self.system.on_chip_weights
        beyond = max(self._facts[2] - memory.mb * 1e6, 0.0) if memory else 0.0
        return beyond / (memory.stream_gb_s * 1e6) if memory else 0.0

    @property
    def _facts(self) -> tuple[Floats, int, float]:
        system = self.system
        return _facts(
            self.network, self.batch, system.precision, system.fusion, system.keeps_norms, system.has_winograd
        )


@cache
def _facts(
    network: str, batch: int, precision: Precision, fusion: tuple[str, ...], norms: bool, winograd: bool
) -> tuple[Floats, int, float]:
    rows = Workload.of(build(network, batch, norms=norms, precision=precision), fusion)
    codes = class_codes(rows)
    if not winograd:
        codes = np.where(codes == WINOGRAD, CONVOLUTION, codes)
    parts = work(rows, codes)
    total = np.zeros((len(KERNEL_CLASSES), len(WORK)))
    np.add.at(total, codes[codes >= 0], parts[codes >= 0])
    return total, len(rows), float(rows.weight_bytes.sum())


def samples(rows: Iterable[PublishedLatency] | None = None) -> dict[System, list[Sample]]:
    """Samples of every system, by default of all that was published.

    Rows that say something else than one inference of a network (``comparable``) are left out, detectors whose files
    suppress boxes on the processor among them, and so are batches of more than 8.
    """
    return dict(_published()) if rows is None else _by_system(rows)


@cache
def _published() -> dict[System, list[Sample]]:
    return _by_system(published_latencies())


def _by_system(rows: Iterable[PublishedLatency]) -> dict[System, list[Sample]]:
    listed = {system: _of_system(system, entries) for system, entries in by_system(rows).items()}
    return {system: entries for system, entries in listed.items() if entries}


def _of_system(system: System, rows: Iterable[PublishedLatency]) -> list[Sample]:
    groups: dict[tuple[str, int], list[PublishedLatency]] = {}
    for row in rows:
        try:
            network = find(row.network)
        except DeviceError:
            continue
        postprocessed = network.family == "SSD" and system.family in _POSTPROCESSED
        if network.comparable and not postprocessed and row.batch <= _LARGEST_BATCH:
            groups.setdefault((network.name, row.batch), []).append(row)
    return [_sample(system, name, batch, group) for (name, batch), group in sorted(groups.items())]


def _sample(system: System, network: str, batch: int, rows: list[PublishedLatency]) -> Sample:
    times = [row.latency_ms for row in rows]
    watts = [row.power_w for row in rows if row.power_w is not None]
    return Sample(
        system=system,
        network=network,
        family=NETWORKS[network].family,
        batch=batch,
        latency_ms=statistics.median(times),
        power_w=statistics.median(watts) if watts else None,
        spread=max(times) / min(times),
    )


def families(found: Mapping[System, Sequence[Sample]]) -> tuple[str, ...]:
    """Families of networks in ``found``, sorted."""
    return tuple(sorted({sample.family for entries in found.values() for sample in entries}))
