"""A network in parts of one layer each: what a part depends on, and which kernels belong to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from kneepoint.hardware_models.kernels import Kernel
from kneepoint.hardware_models.operators import OperatorTable
from kneepoint.spaces.channel_flow import Layout
from kneepoint.spaces.head_axes import ATTENTION
from kneepoint.spaces.network import VARIABLE_KINDS, Network, Operation

_HEADS = VARIABLE_KINDS | {"matmul"}
_REACH = 2
"""How many operators without a weight a format is followed through, from the value that a part writes."""


@dataclass(frozen=True)
class Part:
    """A layer and the operators behind it, up to the next layer.

    Attributes:
        operations: Names, in execution order.
        layers: Layers of the network that decide its kernels: its own, and those that it shares values with.
        own_layers: Those whose weights it holds.
        groups: Channel groups of all it reads and writes.
        reads: Values it takes from other parts.
        writes: Values that other parts take.
    """

    operations: tuple[str, ...]
    layers: frozenset[str]
    own_layers: frozenset[str]
    groups: frozenset[str]
    reads: tuple[str, ...]
    writes: tuple[str, ...]


class NetworkParts:
    """The parts of a network, in execution order.

    Args:
        network: As it is; policies that leave out blocks have another network.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self._part_of = dict(_numbered(network))
        count = max(self._part_of.values()) + 1
        names: list[list[str]] = [[] for _ in range(count)]
        for name, part in self._part_of.items():
            names[part].append(name)
        self.parts = [self._part(index, tuple(listed)) for index, listed in enumerate(names)]

    def owners(self, table: OperatorTable, kernels: Sequence[Kernel]) -> list[int]:
        """The part of every kernel; a conversion belongs to the part that writes the value."""
        operation_of = {operator.name: operator.output.split(": ")[0] for operator in table.operators}
        return [self._owner(kernel, operation_of) for kernel in kernels]

    def _owner(self, kernel: Kernel, operation_of: Mapping[str, str]) -> int:
        if kernel.operators:
            return self._part_of[operation_of[kernel.operators[0]]]
        name = kernel.name
        while name not in self._part_of and name not in operation_of:
            name, colon, _ = name.rpartition(":")
            if not colon:  # a conversion of an input of the network
                return 0
        return self._part_of[name if name in self._part_of else operation_of[name]]

    def holders(self, table: OperatorTable) -> list[tuple[int, int]]:
        """(part, stored bytes) of every constant of a layer; one that several layers share belongs to the last."""
        found: dict[str | int, tuple[int, int]] = {}
        for operator in table.operators:
            part = self._part_of[operator.output.split(": ")[0]]
            for constant in (operator.weight, operator.bias):
                if constant is not None:
                    found[constant.name or len(found)] = (part, constant.stored_bytes)
        return list(found.values())

    def states(self, table: OperatorTable, kernels: Sequence[Kernel], owners: Sequence[int]) -> dict[str, object]:
        """How every value that one part hands to another is held: in which formats and layouts its part writes it."""
        written: dict[str, list[object]] = {}
        for kernel, owner in zip(kernels, owners, strict=True):
            name = kernel.writes.split(":")[0]
            if self._part_of.get(name) == owner:
                suffix = kernel.writes.removeprefix(name)
                width = kernel.output_bytes / max(kernel.elements, 1)
                written.setdefault(name, []).append((suffix, kernel.kind == "reorder", kernel.layout, width))
        sources = {operator.output: operator.inputs for operator in table.operators}

        def state(name: str) -> object:
            own = (table.tensors[name].format, *written.get(name, ()))
            views = sources.get(name, ()) if name not in written else ()
            return (own, *(state(source) for source in views[:1] if source in table.tensors))

        return {name: state(name) for part in self.parts for name in part.writes}

    @cached_property
    def other_groups(self) -> frozenset[str]:
        """Channel groups of constants that belong to no layer: norms, scales, positions."""
        stored = {
            name
            for operation in self.network.operations
            if not operation.weight
            for name in self.network.constants_of(operation)
        }
        return frozenset().union(*(_groups(self.network.flow.parameters[name]) for name in stored))

    def _part(self, index: int, names: tuple[str, ...]) -> Part:
        operations = [self.network.operation_of[name] for name in names]
        inputs = dict.fromkeys(name for operation in operations for name in operation.inputs)
        reads = tuple(name for name in inputs if self._part_of.get(name, index) != index)
        readers = self.network.readers
        writes = tuple(
            name for name in names if any(self._part_of[reader.name] != index for reader in readers.get(name, ()))
        )
        own = frozenset(operation.layer for operation in operations) & self.network.layers.keys()
        near = frozenset().union(*(self._near(name, _REACH) for name in names))
        groups = [self._value_groups(name) for name in (*inputs, *names)]
        stored = [
            _groups(self.network.flow.parameters[name])
            for operation in operations
            for name in self.network.constants_of(operation)
        ]
        return Part(names, own | near, own, frozenset().union(*groups, *stored), reads, writes)

    def _near(self, value: str, reach: int) -> frozenset[str]:
        """Layers that read a value, also through a few operators without a weight, and those that meet it there."""
        found: set[str] = set()
        for reader in self.network.readers.get(value, ()):
            found.add(reader.layer)
            if not reader.layer and reach:
                found |= {self.network.operation_of[name].layer for name in reader.inputs if name in self._part_of}
                found |= self._near(reader.name, reach - 1)
        return frozenset(found) & self.network.layers.keys()

    def _value_groups(self, name: str) -> frozenset[str]:
        operation = self.network.operation_of.get(name)
        return _groups((operation.axis[1],)) if operation is not None and operation.axis is not None else frozenset()


def _numbered(network: Network) -> Iterator[tuple[str, int]]:
    """Every operation with the number of its part."""
    part, headed = 0, False
    for operation in network.operations:
        if _is_head(operation):
            part, headed = part + headed, True
        yield operation.name, part


def _is_head(operation: Operation) -> bool:
    return operation.kind in _HEADS or operation.function == ATTENTION


def _groups(layouts: Sequence[Layout]) -> frozenset[str]:
    return frozenset(segment.group for layout in layouts for segment in layout if segment.group is not None)
