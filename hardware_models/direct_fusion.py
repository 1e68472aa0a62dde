"""The kernels of a runtime that computes every operator as its tensors are held.

Runtimes of phones, microcontrollers and accelerators have an integer kernel for whatever they execute, or refuse it, so
that no conversions stand between kernels; what only looks at a tensor in another shape is no kernel at all. They differ
in what a kernel does before it writes its output:

- ``activation``: it clamps (relu, relu6), as in TensorFlow Lite;
- ``epilogue``: it does whatever follows element by element, sums with other tensors and norms included, as the
  compilers of accelerators do (TensorRT's layer fusions, for one).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from kneepoint.hardware_models.fusion_graph import FusionGraph, has_integer_weight, has_packed_weight
from kneepoint.hardware_models.grouping import CLAMPS
from kneepoint.hardware_models.kernels import KernelFormat
from kneepoint.hardware_models.nodes import Node, NodeGraph, Value
from kneepoint.hardware_models.operators import BITS, FP32_BYTES, Operator, OperatorTable

_ELEMENTWISE = frozenset({"activation", "add", "mul", "batch_norm", "select"})
_HEADS = frozenset({"conv", "depthwise_conv", "grouped_conv", "conv_transpose", "linear", "matmul", "add", "mul"})
"""Kinds of kernels that clamp what they write."""
_PACKED: Mapping[int, KernelFormat] = {2: "packed2", 4: "packed4", 8: "packed8"}
_BLOCKWISE: Mapping[int, KernelFormat] = {2: "dynamic2", 4: "dynamic4", 8: "dynamic8"}
_BYTE = 8


def direct_nodes(table: OperatorTable, rules: Collection[str]) -> NodeGraph:
    """The nodes of ``table``, in execution order.

    Args:
        table: What the network computes.
        rules: Of ``activation`` and ``epilogue``, what a kernel does before it writes.
    """
    direct = _Direct(FusionGraph.of(table), rules)
    for operator in table.operators:
        direct.append(operator)
    return direct.graph_of_nodes()


@dataclass
class _Direct:
    graph: FusionGraph
    rules: Collection[str]
    nodes: list[Node] = field(default_factory=list)
    values: dict[str, Value] = field(default_factory=dict)
    writers: dict[str, Node] = field(default_factory=dict)

    def __post_init__(self) -> None:
        tensors = self.graph.table.tensors
        self.values = {name: Value(tensor.shape, self.graph.width(name), name) for name, tensor in tensors.items()}

    def append(self, operator: Operator) -> None:
        if operator.kind == "view":
            self._look(operator)
        elif (before := self._joined(operator)) is not None:
            self._join(before, operator)
        else:
            self._begin(operator)

    def graph_of_nodes(self) -> NodeGraph:
        return NodeGraph(self.nodes, self.values, self.graph.table.inputs, self.graph.table.outputs)

    def _look(self, operator: Operator) -> None:
        """Another name for what is read, which whoever writes that writes, too."""
        source = operator.inputs[0]
        self.values[operator.output].buffer = self.values[source].buffer
        if source in self.writers:
            self.writers[operator.output] = self.writers[source]

    def _joined(self, operator: Operator) -> Node | None:
        """The kernel that does the work of ``operator`` before it writes; the last one that could."""
        if operator.kind not in _ELEMENTWISE:
            return None
        found = [self.writers[name] for name in operator.inputs if name in self.writers and self._is_alone(name)]
        found = [node for node in found if self._performs(node, operator)]
        return max(found, key=self.nodes.index, default=None)

    def _is_alone(self, name: str) -> bool:
        return self.graph.follower(name) is not None and self.writers[name].output == name

    def _performs(self, node: Node, operator: Operator) -> bool:
        if "epilogue" in self.rules:
            return True
        return "activation" in self.rules and operator.function in CLAMPS and node.kind in _HEADS

    def _join(self, node: Node, operator: Operator) -> None:
        others = [name for name in operator.inputs if self.writers.get(name) is not node]
        node.inputs.extend(others)
        node.operators += (operator.name,)
        node.activation = "+".join(filter(None, (node.activation, operator.function or operator.kind)))
        node.output = operator.output
        self.writers[operator.output] = node

    def _begin(self, operator: Operator) -> None:
        node = Node(operator.name, operator.kind, list(operator.inputs), operator.output)
        node.format, node.function, node.operator = self._format(operator), operator.function, operator
        node.operators, node.macs = (operator.name,), operator.macs
        node.axes, node.operand = operator.axes, operator.operand
        node.weight_bytes = self._weight_bytes(operator)
        self.nodes.append(node)
        self.writers[operator.output] = node

    def _format(self, operator: Operator) -> KernelFormat:
        if has_packed_weight(operator) and operator.weight is not None:
            names = _BLOCKWISE if operator.dynamic else _PACKED
            return next(name for bits, name in names.items() if bits >= min(operator.weight.stored_bits, _BYTE))
        if operator.dynamic:
            return "dynamic"
        reads_bytes = self.graph.all_bytes(operator.inputs) and bool(operator.inputs)
        return "int8" if reads_bytes and (operator.weight is None or has_integer_weight(operator)) else "fp32"

    def _weight_bytes(self, operator: Operator) -> int:
        weight = operator.weight
        if weight is None:
            return 0
        if operator.kind == "embedding":  # only the rows that are looked up are read
            return self.values[operator.output].elements * BITS.get(weight.format, _BYTE) // 8
        if weight.format == "packed":
            return weight.executed_bytes
        return weight.elements * (1 if has_integer_weight(operator) else FP32_BYTES)
