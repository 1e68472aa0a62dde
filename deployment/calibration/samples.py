"""Timed micro-networks on disk, a line of JSON each, so that a calibration that was interrupted goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kneepoint.hardware_models.kernels import GEOMETRY, Kernel
from kneepoint.hardware_models.liveness import Buffers
from kneepoint.hardware_models.surroundings import SURROUNDINGS, surroundings
from kneepoint.hardware_models.workload import FORMAT_CODES, KIND_CODES, LAYOUT_CODES, Workload

_SIZES = ("macs", "input_bytes", "weight_bytes", "output_bytes", "elements")


@dataclass(frozen=True)
class TimedKernel:
    """One kernel where it stood.

    Attributes:
        row: What it is priced on: as ``Kernel.row``, and its surroundings.
        microseconds: As the profiler saw it, its own share included; None where it is not known which node it was.
    """

    row: tuple[Any, ...]
    microseconds: float | None

    @classmethod
    def all(cls, kernels: Sequence[Kernel], microseconds: Mapping[int, float]) -> tuple[TimedKernel, ...]:
        """The kernels of one network, in execution order.

        Args:
            kernels: All of them.
            microseconds: By position, where it is known.
        """
        around = surroundings(kernels).tolist()
        return tuple(cls(_row(kernel, around[at]), microseconds.get(at)) for at, kernel in enumerate(kernels))


def _row(kernel: Kernel, around: Sequence[int]) -> tuple[Any, ...]:
    sizes = (getattr(kernel, name) for name in _SIZES)
    return (kernel.kind, kernel.format, kernel.layout, kernel.function, *sizes, *kernel.geometry, *around)


@dataclass(frozen=True)
class Sample:
    """One micro-network at one thread count.

    Attributes:
        index: Its number; equal numbers are equal networks.
        threads: Threads inside an operator.
        held_out: Whether it judges, and is never fitted to.
        style: Of the network.
        batch: Samples of one inference.
        total_us: Microseconds of an inference without the profiler.
        complete: Whether all of its kernels are known, and no others ran.
        seconds: That timing it took, repetitions included.
        kernels: In execution order.
    """

    index: int
    threads: int
    held_out: bool
    style: str
    batch: int
    total_us: float
    complete: bool
    seconds: float
    kernels: tuple[TimedKernel, ...]

    def to_line(self) -> str:
        """One line of JSON."""
        return json.dumps({**asdict(self), "kernels": [[*kernel.row, kernel.microseconds] for kernel in self.kernels]})

    @classmethod
    def of_line(cls, line: str) -> Sample:
        """What :meth:`to_line` gave."""
        content = json.loads(line)
        kernels = tuple(TimedKernel(tuple(entry[:-1]), entry[-1]) for entry in content.pop("kernels"))
        return cls(**content, kernels=kernels)


def read_samples(path: Path) -> Iterator[Sample]:
    """The samples in a file, behind its header; a last line that was cut off is left out."""
    for line in path.read_text(encoding="utf-8").split("\n")[1:-1]:
        yield Sample.of_line(line)


@dataclass(frozen=True, eq=False)
class SampleTable:
    """Many samples as arrays.

    Attributes:
        workload: All kernels, end to end.
        network: (kernels,) int64, the sample that each belongs to.
        microseconds: (kernels,) float64, as the profiler saw them; NaN where unknown.
        total_us: (samples,) float64.
        complete: (samples,) whether all kernels are known.
    """

    workload: Workload
    network: NDArray[np.int64]
    microseconds: NDArray[np.float64]
    total_us: NDArray[np.float64]
    complete: NDArray[np.bool_]

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> SampleTable:
        """The table of ``samples``."""
        kernels = [kernel for sample in samples for kernel in sample.kernels]
        lengths = [len(sample.kernels) for sample in samples]
        times = [np.nan if kernel.microseconds is None else kernel.microseconds for kernel in kernels]
        return cls(
            workload=_workload([kernel.row for kernel in kernels]),
            network=np.repeat(np.arange(len(samples)), lengths),
            microseconds=np.array(times, np.float64),
            total_us=np.array([sample.total_us for sample in samples], np.float64),
            complete=np.array([sample.complete for sample in samples], np.bool_),
        )


def _workload(rows: Sequence[tuple[Any, ...]]) -> Workload:
    """Rows as the kernels of one workload, which has no sizes of its own."""
    first = 4 + len(_SIZES)
    last = first + len(GEOMETRY)
    sizes: dict[str, Any] = {
        name: np.array([row[4 + place] for row in rows], np.int64) for place, name in enumerate(_SIZES)
    }
    return Workload(
        names=("",) * len(rows),
        functions=tuple(row[3] for row in rows),
        kind=np.array([KIND_CODES[row[0]] for row in rows], np.int16),
        format=np.array([FORMAT_CODES[row[1]] for row in rows], np.int8),
        layout=np.array([LAYOUT_CODES[row[2]] for row in rows], np.int8),
        geometry=np.array([row[first:last] for row in rows], np.int64).reshape(-1, len(GEOMETRY)),
        surroundings=np.array([row[last:] for row in rows], np.int64).reshape(-1, len(SURROUNDINGS)),
        **sizes,
        storage_bytes=0,
        resident_bytes=0,
        parameters=0,
        peak_activation_bytes=0,
        buffers=Buffers.none(),
    )
