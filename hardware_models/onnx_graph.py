"""An ONNX graph on its way into the operator table: what has been emitted, and which values stand for which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import onnx

from kneepoint.hardware_models.onnx_constants import Constant, Constants, integers
from kneepoint.hardware_models.operators import ONNX_KINDS, Bias, Operator, OperatorTable, Tensor, Weight
from kneepoint.hardware_models.shape_inference import Shape, concrete_shapes
from kneepoint.tasks.errors import DeviceError


@dataclass
class OnnxGraph:
    """The state of one walk over a graph; rules read and change it, :meth:`table` is its result.

    Attributes:
        graph: What is lowered.
        shapes: Of every value.
        types: Element types of the network's inputs.
        constants: Seen so far.
        reads: How often each value is read; being an output of the network counts.
        readers: Of each value.
        alias: Values that stand for another one, once pairs and folded nodes are gone.
        tensors: Declared so far.
        operators: Emitted so far.
        writer: Position of the operator that writes a tensor.
        counted: Parameters that belong to no layer, by initializer.
        names: How often each operator name was asked for.
        ranges: Steps of dynamically quantized values, and their products with the scales of weights.
        quantized: Dynamically quantized values, and the float values they come from.
    """

    graph: onnx.GraphProto
    shapes: dict[str, Shape] = field(init=False)
    types: dict[str, int] = field(init=False)
    constants: Constants = field(init=False)
    reads: Counter[str] = field(init=False)
    readers: dict[str, list[onnx.NodeProto]] = field(default_factory=dict)
    alias: dict[str, str] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    operators: list[Operator] = field(default_factory=list)
    writer: dict[str, int] = field(default_factory=dict)
    counted: dict[str, Constant] = field(default_factory=dict)
    names: dict[str, int] = field(default_factory=dict)
    ranges: dict[str, Constant | None] = field(default_factory=dict)
    quantized: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Index the graph and declare its inputs."""
        self.shapes = concrete_shapes(self.graph)
        self.types = {value.name: value.type.tensor_type.elem_type for value in self.graph.input}
        self.constants = Constants(self.shapes)
        self.reads = Counter(value.name for value in self.graph.output)
        for node in self.graph.node:
            self.reads.update(name for name in node.input if name)
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        for tensor in self.graph.initializer:
            self.constants.store(tensor.name, tensor)
        for name in self._input_names():
            self.declare(name, "the network's input")

    def table(self) -> OperatorTable:
        """What was emitted.

        Raises:
            KeyError: If an output was not.
        """
        outputs = tuple(self.name(value.name) for value in self.graph.output if value.name not in self.constants)
        if missing := [name for name in outputs if name not in self.tensors]:
            raise KeyError(f"nothing writes the output {missing[0]!r}")
        folded = tuple(self.constants.folded(constant) for constant in self.counted.values() if constant.is_packed)
        floats = sum(constant.elements for constant in self.counted.values() if not constant.is_packed)
        table = OperatorTable(tuple(self.operators), self.tensors, self._input_names(), outputs, folded=folded)
        return replace(table, parameters=table.layer_parameters + floats)

    def name(self, name: str) -> str:
        """The tensor that ``name`` stands for."""
        while name in self.alias:
            name = self.alias[name]
        return name

    def originals(self, name: str) -> Iterator[str]:
        """``name`` and those along the chain to the tensor it stands for."""
        yield name
        while name in self.alias:
            name = self.alias[name]
            yield name

    def declare(self, name: str, what: str) -> None:
        """Add a float tensor.

        Raises:
            DeviceError: If its shape is not known.
        """
        if name not in self.shapes:
            raise DeviceError(
                f"the shape of tensor {name!r} ({what}) cannot be inferred; only the batch may be symbolic: "
                "export the model with every other dimension fixed"
            )
        self.tensors[name] = Tensor(name, self.shapes[name])

    def inputs(self, node: onnx.NodeProto) -> tuple[str, ...]:
        """The activations that ``node`` reads."""
        return tuple(self.name(name) for name in node.input if name and name not in self.constants)

    def input(self, node: onnx.NodeProto) -> Tensor:
        """The first activation that ``node`` reads."""
        return self.tensors[self.inputs(node)[0]]

    def count(self, *constants: Constant | None) -> None:
        """Count those that are parameters, once per initializer, however many operators share it."""
        for constant in constants:
            if constant is not None and self.constants.is_parameter(constant):
                self.counted.setdefault(constant.root, constant)

    def count_operands(self, node: onnx.NodeProto) -> None:
        """Count those operands of ``node`` that are parameters."""
        self.count(*(self.constants.operand(node, index) for index in range(len(node.input))))

    def emit(
        self,
        node: onnx.NodeProto,
        kind: str,
        *,
        macs: int = 0,
        weight: Weight | None = None,
        bias: Bias | None = None,
        function: str = "",
        kernel: Shape = (),
        inputs: tuple[str, ...] | None = None,
        layer: str = "",
        dynamic: bool = False,
        stride: int = 0,
        axes: Shape = (),
        operand: Shape | None = None,
    ) -> None:
        """Append one operator an output of ``node``.

        Raises:
            DeviceError: If the shape of an output is not known.
            KeyError: If it reads what is not written yet.
        """
        for output in (name for name in node.output if self.reads[name]):
            self.declare(output, f"written by {node.op_type} {node.name!r}")
            self.writer[output] = len(self.operators)
            name = self._unique(layer or node.name or output)
            reads = self.inputs(node) if inputs is None else inputs
            if missing := [source for source in reads if source not in self.tensors]:
                raise KeyError(f"{node.op_type} {name!r} reads {missing[0]!r} before it is written")
            attributes = (macs, weight, function, kernel, bias, dynamic, stride, axes, operand)
            self.operators.append(Operator(name, kind, reads, output, *attributes))

    def other(self, node: onnx.NodeProto) -> None:
        """Append an operator without a rule, whose kind its name says, or which the table does not know."""
        self.count_operands(node)
        known = "other" if node.domain else ONNX_KINDS.get(node.op_type, "other")
        axes = self.axes(node) if known == "reduce" else ()
        self.emit(node, known, function=node.op_type, axes=axes)

    def axes(self, node: onnx.NodeProto) -> Shape:
        """The axes of its first input that ``node`` works along, counted from the first; all where it names none."""
        rank = len(self.shapes.get(node.input[0], ()))
        given = self.constants.values(node.input[1]) if len(node.input) > 1 else integers(node, "axes")
        return tuple(sorted(axis % rank for axis in given)) if given else tuple(range(rank))

    def written_by(self, name: str) -> Operator | None:
        """The operator that wrote ``name``."""
        name = self.name(name)
        return self.operators[self.writer[name]] if name in self.writer else None

    def producer(self, name: str) -> Operator | None:
        """The operator that wrote ``name``, if nothing but the caller reads it."""
        return self.written_by(name) if self.reads[self.name(name)] == 1 else None

    def replace(self, operator: Operator, changed: Operator) -> None:
        """Put ``changed`` in the place of ``operator``."""
        self.operators[self.writer[operator.output]] = changed

    def drop_last(self) -> None:
        """Take back what was emitted last."""
        operator = self.operators.pop()
        del self.names[operator.name], self.tensors[operator.output], self.writer[operator.output]

    def hand_on(self, node: onnx.NodeProto, source: str) -> None:
        """Make the output of ``node`` another name of ``source``, which it read once."""
        source = self.name(source)
        self.alias[node.output[0]] = source
        self.reads[source] += self.reads[node.output[0]] - 1

    def absorb_bias(self, node: onnx.NodeProto, into: Operator, bias: Bias, layer: str = "") -> None:
        """Give layer ``into`` a bias and make the output of ``node`` its output."""
        self.replace(into, replace(into, name=self._unique(layer) if layer else into.name, bias=bias))
        self.hand_on(node, into.output)

    def _input_names(self) -> tuple[str, ...]:
        return tuple(value.name for value in self.graph.input if value.name not in self.constants)

    def _unique(self, name: str) -> str:
        """``name``, numbered where an operator has it already: exporters may repeat node names, and layers share."""
        while name in self.names:
            self.names[name] += 1
            name = f"{name}:{self.names[name]}"
        self.names[name] = 1
        return name
