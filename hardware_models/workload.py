"""The kernels of one network as arrays: what a cost model prices, a million at a time."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from kneepoint.hardware_models.fusion import fuse
from kneepoint.hardware_models.kernels import KERNEL_KINDS, Kernel
from kneepoint.hardware_models.operators import FP32_BYTES, OperatorTable

KIND_CODES = {kind: code for code, kind in enumerate(KERNEL_KINDS)}
FORMATS = ("fp32", "int8")
FORMAT_CODES = {name: code for code, name in enumerate(FORMATS)}

Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Workload:
    """One network on one runtime: a row for every kernel, and what it needs as a whole.

    Attributes:
        names: Of the kernels.
        functions: Their activations, or the foreign names of ``other``.
        kind: (kernels,) int16, positions in ``KERNEL_KINDS``.
        format: (kernels,) int8, positions in ``FORMATS``.
        macs: (kernels,) int64, multiply-accumulate operations.
        input_bytes: (kernels,) int64, activations read.
        weight_bytes: (kernels,) int64, constants read, as a session holds them.
        output_bytes: (kernels,) int64, activations written.
        elements: (kernels,) int64, of the output.
        storage_bytes: All constants in the artifact.
        resident_bytes: All constants in memory, once a session has unpacked them.
        parameters: Elements of all constants.
        peak_activation_bytes: The most that activations occupy at once.
        sparse: Patterns of zeros in weights, by the kernel's position; the weights of all others are dense.
    """

    names: tuple[str, ...]
    functions: tuple[str, ...]
    kind: NDArray[np.int16]
    format: NDArray[np.int8]
    macs: Integers
    input_bytes: Integers
    weight_bytes: Integers
    output_bytes: Integers
    elements: Integers
    storage_bytes: int
    resident_bytes: int
    parameters: int
    peak_activation_bytes: int
    sparse: Mapping[int, str] = field(default_factory=dict)

    @classmethod
    def of(cls, table: OperatorTable, fusion_rules: Collection[str] = ("activation",)) -> Workload:
        """The workload of ``table`` on a runtime that applies ``fusion_rules``.

        Raises:
            ValueError: If a rule is unknown (see ``kneepoint.hardware_models.fusion``).
        """
        kernels = fuse(table, fusion_rules)
        unattached = FP32_BYTES * max(table.parameters - table.layer_parameters, 0)  # norms, positions and the like
        return cls(
            names=tuple(kernel.name for kernel in kernels),
            functions=tuple(kernel.function for kernel in kernels),
            kind=np.array([KIND_CODES[kernel.kind] for kernel in kernels], np.int16),
            format=np.array([FORMAT_CODES[kernel.format] for kernel in kernels], np.int8),
            macs=_column([kernel.macs for kernel in kernels]),
            input_bytes=_column([kernel.input_bytes for kernel in kernels]),
            weight_bytes=_column([kernel.weight_bytes for kernel in kernels]),
            output_bytes=_column([kernel.output_bytes for kernel in kernels]),
            elements=_column([kernel.elements for kernel in kernels]),
            storage_bytes=table.storage_bytes + unattached,
            resident_bytes=table.resident_bytes + unattached,
            parameters=table.parameters,
            peak_activation_bytes=peak_activation_bytes(table, kernels),
            sparse={row: kernel.sparsity for row, kernel in enumerate(kernels) if kernel.sparsity != "dense"},
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


def peak_activation_bytes(table: OperatorTable, kernels: Sequence[Kernel]) -> int:
    """The most bytes of activations alive at once, in the kernels' order.

    A buffer lives from the kernel that writes it to the last one that reads it; inputs of the network from the start,
    its outputs to the end. Nothing is computed in place, and a fused value between two operators never exists.
    """
    sizes = _buffer_sizes(table, kernels)
    last = {name: step for step, kernel in enumerate(kernels) for name in (kernel.writes, *kernel.reads)}
    end = len(kernels)
    last.update({name: end for name in table.outputs if name in sizes})
    freed: dict[int, list[str]] = {}
    for name, step in last.items():
        freed.setdefault(step, []).append(name)
    alive = {name for name in sizes if name not in {kernel.writes for kernel in kernels}}
    current = peak = sum(sizes[name] for name in alive)
    for step, kernel in enumerate(kernels):
        if kernel.writes and kernel.writes not in alive:
            alive.add(kernel.writes)
            current += sizes[kernel.writes]
        peak = max(peak, current)
        for name in freed.get(step, ()):
            if name in alive:
                alive.remove(name)
                current -= sizes[name]
    return peak


def _buffer_sizes(table: OperatorTable, kernels: Sequence[Kernel]) -> dict[str, int]:
    """Bytes of every buffer: those that kernels write, and the network's inputs as they are handed in."""
    written = {kernel.writes: kernel.output_bytes for kernel in kernels if kernel.writes}
    given = {name: FP32_BYTES * table.tensors[name.removesuffix(":float")].elements for name in _given(table, kernels)}
    return {**given, **written}


def _given(table: OperatorTable, kernels: Sequence[Kernel]) -> set[str]:
    written = {kernel.writes for kernel in kernels}
    read = {name for kernel in kernels for name in kernel.reads}
    return {name for name in read - written if name.removesuffix(":float") in table.tensors}


def _column(values: Sequence[int]) -> Integers:
    return np.array(values, np.int64)
