"""When the activations of a network are in memory: from the kernel that writes them to the last one that reads them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from kneepoint.hardware_models.kernels import Kernel
from kneepoint.hardware_models.operators import FP32_BYTES, OperatorTable

Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Buffers:
    """The activations of one inference, in the order in which they come to life.

    A buffer lives from the kernel that first writes it to the last one that uses it; inputs of the network from the
    start, its outputs to the end. Nothing is computed in place but what kernels say they do, and a fused value between
    two operators never exists.

    Attributes:
        bytes: (buffers,) int64, of each.
        first: (buffers,) int64, position of the first kernel at which it is alive.
        last: (buffers,) int64, position of the last one.
        kernels: How many kernels there are.
        inputs: (inputs, 2) int64, of those inputs of the network that only kernels on integers read: which buffer each
            is, and the bytes that it takes where the network is handed integers instead of floats.
    """

    bytes: Integers
    first: Integers
    last: Integers
    kernels: int
    inputs: Integers = field(default_factory=lambda: np.zeros((0, 2), np.int64))

    @classmethod
    def of(cls, table: OperatorTable, kernels: Sequence[Kernel]) -> Buffers:
        """The buffers of ``kernels``, which were made of ``table``."""
        fresh = {kernel.writes for kernel in kernels if kernel.writes not in kernel.reads}
        sizes = _sizes(table, kernels, fresh)
        first: dict[str, int] = {}
        last: dict[str, int] = {}
        for step, kernel in enumerate(kernels):
            if kernel.writes in fresh:
                first.setdefault(kernel.writes, step)
            last.update(dict.fromkeys((kernel.writes, *kernel.reads), step))
        end = len(kernels) - 1
        last.update({name: end for name in table.outputs if name in sizes})
        spans = sorted((first.get(name, 0), last[name], size, name) for name, size in sizes.items())
        columns = np.array([span[:3] for span in spans], np.int64).reshape(-1, 3)
        narrow = _as_integers(table, kernels, sizes.keys() - fresh)
        inputs = [(place, narrow[name]) for place, (*_, name) in enumerate(spans) if name in narrow]
        listed = np.array(inputs, np.int64).reshape(-1, 2)
        return cls(columns[:, 2], columns[:, 0], columns[:, 1], len(kernels), listed)

    @classmethod
    def none(cls) -> Buffers:
        """Those of a network without kernels."""
        nothing = np.zeros(0, np.int64)
        return cls(nothing, nothing, nothing, 0)

    def handed_integers(self) -> Buffers:
        """The buffers where the network is handed integers."""
        sizes = self.bytes.copy()
        sizes[self.inputs[:, 0]] = self.inputs[:, 1]
        return replace(self, bytes=sizes)

    def alive(self, alignment: int = 1) -> Integers:
        """(kernels,) int64: bytes that are alive while each kernel runs.

        Args:
            alignment: Every buffer is rounded up to a multiple of so many bytes.
        """
        sizes = -(-self.bytes // alignment) * alignment
        change = np.zeros(self.kernels + 1, np.int64)
        np.add.at(change, self.first, sizes)
        np.add.at(change, self.last + 1, -sizes)
        return np.cumsum(change)[:-1]


def _sizes(table: OperatorTable, kernels: Sequence[Kernel], fresh: Collection[str]) -> dict[str, int]:
    """Bytes of every buffer: those that kernels write, and the network's inputs as they are handed in.

    Args:
        table: What the kernels were made of.
        kernels: In execution order.
        fresh: Buffers that a kernel writes which does not read them, so that it does not work in place.
    """
    sizes: dict[str, int] = {}
    for kernel in kernels:
        if kernel.writes:
            sizes[kernel.writes] = max(sizes.get(kernel.writes, 0), kernel.output_bytes)
    used = {name for kernel in kernels for name in (kernel.writes, *kernel.reads)}
    for name in used - set(fresh):
        given = table.tensors.get(name.removesuffix(":float"))
        if given is not None:
            sizes[name] = FP32_BYTES * given.elements
    return sizes


def _as_integers(table: OperatorTable, kernels: Sequence[Kernel], handed: Collection[str]) -> dict[str, int]:
    """Bytes of inputs of the network as integers: none where a kernel makes those of floats, which has no work then.

    Indices of an embedding are not values in eight bits.
    """
    narrow: dict[str, int] = {}
    for name in handed:
        readers = [kernel for kernel in kernels if name in kernel.reads]
        given = table.tensors.get(name.removesuffix(":float"))
        if given is not None and all(kernel.kind == "quantize" for kernel in readers):
            narrow[name] = 0
        elif given is not None and all(kernel.format == "int8" and kernel.kind != "embedding" for kernel in readers):
            narrow[name] = given.elements
    return narrow
