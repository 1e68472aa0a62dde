"""The kernels of one network as arrays: what a cost model prices, a million at a time."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from kneepoint.hardware_models.fusion import fuse
from kneepoint.hardware_models.kernels import FORMATS, GEOMETRY, KERNEL_KINDS, LAYOUTS, Kernel
from kneepoint.hardware_models.liveness import Buffers
from kneepoint.hardware_models.operators import OperatorTable
from kneepoint.hardware_models.surroundings import surroundings

KIND_CODES = {kind: code for code, kind in enumerate(KERNEL_KINDS)}
FORMAT_CODES = {name: code for code, name in enumerate(FORMATS)}
LAYOUT_CODES = {name: code for code, name in enumerate(LAYOUTS)}

Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Workload:
    """One network on one runtime: a row for every kernel, and what it needs as a whole.

    Attributes:
        names: Of the kernels.
        functions: Their activations, or the foreign names of ``other``.
        kind: (kernels,) int16, positions in ``KERNEL_KINDS``.
        format: (kernels,) int8, positions in ``FORMATS``.
        layout: (kernels,) int8, positions in ``LAYOUTS``.
        macs: (kernels,) int64, multiply-accumulate operations.
        input_bytes: (kernels,) int64, activations read.
        weight_bytes: (kernels,) int64, constants read, as a session holds them.
        output_bytes: (kernels,) int64, activations written.
        elements: (kernels,) int64, of the output.
        geometry: (kernels, 12) int64, sizes in the order of ``GEOMETRY``; see ``Kernel.geometry``.
        surroundings: (kernels, 8) int64, in the order of ``SURROUNDINGS``.
        storage_bytes: All constants in the artifact.
        resident_bytes: All constants in memory, once a session has unpacked them.
        parameters: Elements of all constants.
        peak_activation_bytes: The most that activations occupy at once.
        sparse: Patterns of zeros in weights, by the kernel's position; the weights of all others are dense.
        buffers: Its activations in memory.
    """

    names: tuple[str, ...]
    functions: tuple[str, ...]
    kind: NDArray[np.int16]
    format: NDArray[np.int8]
    layout: NDArray[np.int8]
    macs: Integers
    input_bytes: Integers
    weight_bytes: Integers
    output_bytes: Integers
    elements: Integers
    geometry: Integers
    surroundings: Integers
    storage_bytes: int
    resident_bytes: int
    parameters: int
    peak_activation_bytes: int
    sparse: Mapping[int, str] = field(default_factory=dict)
    buffers: Buffers = field(default_factory=Buffers.none)

    @classmethod
    def of(cls, table: OperatorTable, fusion_rules: Collection[str] = ("activation",)) -> Workload:
        """The workload of ``table`` on a runtime that applies ``fusion_rules``.

        Raises:
            ValueError: If a rule is unknown (see ``kneepoint.hardware_models.fusion``).
        """
        return cls.of_kernels(table, fuse(table, fusion_rules))

    @classmethod
    def of_kernels(cls, table: OperatorTable, kernels: Sequence[Kernel]) -> Workload:
        """The workload of ``kernels``, which were made of ``table``."""
        buffers = Buffers.of(table, kernels)
        return cls(
            names=tuple(kernel.name for kernel in kernels),
            functions=tuple(kernel.function for kernel in kernels),
            kind=np.array([KIND_CODES[kernel.kind] for kernel in kernels], np.int16),
            format=np.array([FORMAT_CODES[kernel.format] for kernel in kernels], np.int8),
            layout=np.array([LAYOUT_CODES[kernel.layout] for kernel in kernels], np.int8),
            macs=_column([kernel.macs for kernel in kernels]),
            input_bytes=_column([kernel.input_bytes for kernel in kernels]),
            weight_bytes=_column([kernel.weight_bytes for kernel in kernels]),
            output_bytes=_column([kernel.output_bytes for kernel in kernels]),
            elements=_column([kernel.elements for kernel in kernels]),
            geometry=np.array([kernel.geometry for kernel in kernels], np.int64).reshape(-1, len(GEOMETRY)),
            surroundings=surroundings(kernels),
            storage_bytes=table.storage_bytes + table.unattached_bytes,
            resident_bytes=table.resident_bytes + table.unattached_bytes,
            parameters=table.parameters,
            peak_activation_bytes=int(buffers.alive().max(initial=0)),
            sparse={row: kernel.sparsity for row, kernel in enumerate(kernels) if kernel.sparsity != "dense"},
            buffers=buffers,
        )

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kind of every kernel, by name."""
        return tuple(KERNEL_KINDS[code] for code in self.kind)

    @property
    def moved_bytes(self) -> Integers:
        """(kernels,) int64: everything a kernel reads and writes."""
        return self.input_bytes + self.weight_bytes + self.output_bytes

    def __len__(self) -> int:
        return len(self.names)


def _column(values: Sequence[int]) -> Integers:
    return np.array(values, np.int64)
