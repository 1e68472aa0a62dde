"""How ONNX Runtime moves transposes through a graph until they cancel.

The rules are those of its transpose optimizer (onnxruntime/core/optimizer/transpose_optimization, version 1.31): in the
order of execution, a transpose is pushed from an input of a node to its output where that leaves fewer transposed axes,
or where another transpose lies behind. The free batch axis counts as one, whatever its size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from kneepoint.hardware_models.nodes import Node, NodeGraph
from kneepoint.hardware_models.permutations import (
    Axes,
    channels_first,
    channels_last,
    inverse,
    permuted,
    removed_axes,
    unit_order,
    with_axes,
    without_axes,
)

# fmt: off
_SIMPLE = frozenset({
    "abs", "celu", "clip", "erf", "exp", "floor", "gelu", "hardsigmoid", "hardswish", "leakyrelu", "log", "neg",
    "reciprocal", "relu", "round", "selu", "sigmoid", "softplus", "softsign", "sqrt", "tanh", "thresholdedrelu", "pow",
    "prelu",
})
# fmt: on
"""Activations that a transpose may pass."""
_BYTES = 1
_IMAGES = 4


def move_transposes(graph: NodeGraph) -> None:
    """Push the transposes that a graph came with as far as it pays, and cancel pairs; in place.

    A quantization that the runtime had moved in front of a transpose keeps the pair that this needed, if the transpose
    then moves on and several nodes read the bytes.
    """
    shared = [node for node in graph.nodes if node.kind == "transpose" and graph.uses(node.output) > 1]
    before = [graph.producer.get(node.inputs[0]) for node in shared]
    moved = [node for node in before if node is not None and node.kind == "quantize" and graph.uses(node.output) == 1]
    optimizer = TransposeOptimizer(graph)
    optimizer.run()
    for node in moved:
        if graph.uses(node.output) > 1:
            optimizer.repeat_quantization(node)
    graph.sort()


class TransposeOptimizer:
    """Moves the transposes of one graph, in place.

    Attributes:
        graph: Is changed.
        leading: Values from which there is a way through nodes that transposes pass to another transpose.
    """

    def __init__(self, graph: NodeGraph) -> None:
        self.graph = graph
        self.leading: set[str] = set()

    def run(self) -> None:
        """Push every transpose as far as it pays, and cancel pairs."""
        self._find_leading()
        for node in [*self.graph.nodes]:
            if self.graph.producer.get(node.output) is node:  # it may have been cancelled since
                self._visit(node)
        self._requantize()
        self.graph.sort()

    def _find_leading(self) -> None:
        """The values from which there is a way through supported nodes to a transpose."""
        for node in reversed(self.graph.nodes):
            if node.kind == "transpose":
                self.leading.add(node.inputs[0])
            elif node.output in self.leading and node.kind in _HANDLERS and _is_supported(self.graph, node):
                self.leading.update(node.inputs)

    def _visit(self, node: Node) -> None:
        for name in node.inputs:
            before = self.graph.producer.get(name)
            pushes = before is not None and before.kind == "transpose" and self._pushes(node, before.axes)
            if before is not None and pushes and _HANDLERS[node.kind](self, node, before):
                return

    def _pushes(self, node: Node, axes: Axes) -> bool:
        """Whether moving a transpose from the inputs of ``node`` to its output pays."""
        if node.kind not in _HANDLERS or not _is_supported(self.graph, node):
            return False
        if node.kind in ("transpose", "max_pool"):
            return True
        if node.kind == "resize" and node.format == "int8" and node.function in ("linear", "interpolate"):
            return True
        cost = sum(self._cost(name, axes) for name in node.inputs)
        if cost < 0 and node.output not in self.leading and node.kind != "view":
            cost += self._rank(node.output)
        return cost < 0

    def _cost(self, name: str, axes: Axes) -> int:
        """Transposed axes that transposing a value back adds; fewer than none where it cancels a transpose."""
        before = self.graph.producer.get(name)
        if before is not None and before.kind == "dequantize":
            before = self.graph.producer.get(before.inputs[0], before)
        if before is None or before.kind != "transpose":
            return self._rank(name)
        cancels = before.axes == axes and self._may_go(before)
        return -self._rank(name) if cancels else 0

    def _may_go(self, transpose: Node) -> bool:
        readers = self.graph.readers.get(transpose.output, ())
        known = all(reader.kind in _HANDLERS and _is_supported(self.graph, reader) for reader in readers)
        return known and transpose.output not in self.graph.outputs

    def _rank(self, name: str) -> int:
        shape = self.graph.values[name].shape
        return min(len(shape), 1) + sum(size != 1 for size in shape[1:])

    # --- moving ----------------------------------------------------------------------------------------------------

    def through(self, node: Node, transpose: Node) -> bool:
        """Move a transpose from all inputs of ``node`` to its output."""
        axes = transpose.axes
        rank = len(axes)
        if any(len(self.graph.values[name].shape) != rank for name in (*node.inputs, node.output)):
            return False
        for position in range(len(node.inputs)):
            self.transpose_input(node, position, inverse(axes))
        if node.operand:
            node.operand = permuted((*[1] * (rank - len(node.operand)), *node.operand), inverse(axes))
        self._label(node, axes)
        self.transpose_output(node, axes)
        return True

    def _label(self, node: Node, axes: Axes) -> None:
        """Images whose channels are last, and back."""
        if len(axes) >= _IMAGES and axes in (channels_first(len(axes)), channels_last(len(axes))):
            node.layout = "nhwc" if axes == channels_first(len(axes)) else ""

    def through_axes(self, node: Node, transpose: Node) -> bool:
        """The same for a node that works along one axis, which is another one then."""
        axes = transpose.axes
        if not self.through(node, transpose):
            return False
        node.axes = tuple(axes[axis] for axis in node.axes)
        return True

    def through_reduction(self, node: Node, transpose: Node) -> bool:
        """The same for a reduction, whose output may lack the axes that it worked along."""
        axes = transpose.axes
        kept = len(self.graph.values[node.output].shape) == len(axes)
        node.axes = tuple(sorted(axes[axis] for axis in node.axes))
        self._label(node, axes)
        self.transpose_input(node, 0, inverse(axes))
        self.transpose_output(node, axes if kept else without_axes(axes, node.axes))
        return True

    def through_pool(self, node: Node, transpose: Node) -> bool:
        """A pool over bytes has a variant with channels last."""
        rank = len(transpose.axes)
        wanted = channels_first(rank) if node.layout == "" else channels_last(rank)
        if transpose.axes != wanted:
            return False
        axes = transpose.axes
        node.layout = "" if node.layout else "nhwc"
        self.transpose_input(node, 0, inverse(axes))
        self.transpose_output(node, axes)
        return True

    def through_resize(self, node: Node, transpose: Node) -> bool:
        """Resizing knows both layouts of images."""
        rank = len(transpose.axes)
        images = rank == _IMAGES and transpose.axes in (channels_first(rank), channels_last(rank))
        return images and self.through(node, transpose)

    def through_view(self, node: Node, transpose: Node) -> bool:
        """Axes of one element that come or go keep the order of the others; other views stop a transpose."""
        before, after = self.graph.values[transpose.output].shape, self.graph.values[node.output].shape
        if node.function in ("squeeze", "unsqueeze"):
            return self._through_unit_axes(node, transpose, before, after)
        if len(before) != len(after) or not (order := unit_order(before, after)):
            return False
        return self._as_transpose(node, transpose, order)

    def merge(self, node: Node, transpose: Node) -> bool:
        """Two transposes, one behind the other, are one, or none."""
        return self._as_transpose(node, transpose, node.axes)

    def _through_unit_axes(self, node: Node, transpose: Node, before: Axes, after: Axes) -> bool:
        axes = transpose.axes
        if node.function == "squeeze":
            gone = removed_axes(before, after)
            source = tuple(sorted(axes[axis] for axis in gone))
            self.transpose_input(node, 0, inverse(axes))
            self.transpose_output(node, without_axes(axes, source))
            return True
        added = removed_axes(after, before)
        self.transpose_input(node, 0, inverse(axes))
        self.transpose_output(node, with_axes(axes, added))
        return True

    def _as_transpose(self, node: Node, transpose: Node, order: Axes) -> bool:
        graph = self.graph
        if order == inverse(transpose.axes) and node.output not in graph.outputs:
            for reader in [*graph.readers.get(node.output, ())]:
                graph.read_instead(reader, node.output, transpose.inputs[0])
            self._drop(node)
        else:
            node.kind, node.function, node.axes = "transpose", "", tuple(transpose.axes[axis] for axis in order)
            graph.values[node.output].buffer = node.output
            graph.read_instead(node, transpose.output, transpose.inputs[0])
        if not graph.uses(transpose.output):
            self._drop(transpose)
        return True

    def transpose_input(self, node: Node, position: int, axes: Axes) -> None:
        """Let ``node`` read an input transposed: by cancelling what stands before it, or by a new transpose."""
        graph, name = self.graph, node.inputs[position]
        before = graph.producer.get(name)
        if before is not None and before.kind == "dequantize" and graph.uses(name) == 1:
            moved = graph.producer.get(before.inputs[0])
            if moved is not None and moved.kind == "transpose" and moved.axes == inverse(axes):
                self._reread(before, 0, moved.inputs[0], moved)
                graph.values[name].shape = permuted(graph.values[name].shape, axes)
                return
        if before is not None and before.kind == "transpose":
            composed = tuple(before.axes[axis] for axis in axes)
            source = before.inputs[0]
            if composed != tuple(range(len(axes))):
                source = self._transposed(source, composed)
            self._reread(node, position, source, before)
            return
        self._reread(node, position, self._transposed(name, axes), None)

    def _transposed(self, name: str, axes: Axes) -> str:
        """A transposed value, of which there may be one already."""
        graph = self.graph
        for reader in graph.readers.get(name, ()):
            if reader.kind == "transpose" and reader.axes == axes:
                return reader.output
        shape = permuted(graph.values[name].shape, axes)
        written = graph.derive(f"{name}:transposed", name, shape)
        width = graph.values[name].width
        graph.add(Node(written, "transpose", [name], written, "int8" if width == _BYTES else "fp32", axes=axes))
        return written

    def transpose_output(self, node: Node, axes: Axes) -> None:
        """Let ``node`` write a value transposed, behind which a transpose gives back what others read."""
        if axes == tuple(range(len(axes))):
            return
        graph, name = self.graph, node.output
        written = graph.derive(f"{name}:moved", name, permuted(graph.values[name].shape, inverse(axes)))
        del graph.producer[name]
        node.output = written
        graph.producer[written] = node
        graph.values[name].buffer = name
        width = graph.values[name].width
        graph.add(
            Node(f"{name}:transpose", "transpose", [written], name, "int8" if width == _BYTES else "fp32", axes=axes)
        )
        if node.kind == "view":
            graph.values[written].buffer = graph.values[node.inputs[0]].buffer

    def _reread(self, node: Node, position: int, name: str, before: Node | None) -> None:
        graph, old = self.graph, node.inputs[position]
        node.inputs[position] = name
        graph.readers[old].remove(node)
        graph.readers.setdefault(name, []).append(node)
        if before is not None and not graph.uses(before.output):
            self._drop(before)

    def _drop(self, node: Node) -> None:
        self.graph.discard(node)

    def _requantize(self) -> None:
        """A transpose that stopped between a dequantization and floats gets a pair behind it, to move bytes."""
        graph = self.graph
        for node in [*graph.nodes]:
            if node.kind != "transpose" or graph.producer.get(node.output) is not node:
                continue
            before = graph.producer.get(node.inputs[0])
            readers = graph.readers.get(node.output, ())
            if before is None or before.kind != "dequantize" or len(readers) > 1:
                continue
            if graph.uses(before.output) > 1 or any(reader.kind == "quantize" for reader in readers):
                continue
            self._add_pair(node, before)

    def repeat_quantization(self, node: Node) -> None:
        """Dequantize and quantize again what ``node`` wrote."""
        graph, name = self.graph, node.output
        held, floats = graph.derive(f"{name}:held", name), graph.derive(f"{name}:between", node.inputs[0])
        del graph.producer[name]
        node.output = held
        graph.producer[held] = node
        graph.add(Node(f"{name}:dequantize again", "dequantize", [held], floats, "int8"))
        graph.add(Node(f"{name}:quantize again", "quantize", [floats], name, "int8"))

    def _add_pair(self, transpose: Node, before: Node) -> None:
        graph, name = self.graph, transpose.output
        floats = graph.derive(f"{name}:between", name)
        held = graph.derive(f"{name}:held", before.inputs[0], graph.values[name].shape)
        del graph.producer[name]
        transpose.output = floats
        graph.producer[floats] = transpose
        graph.add(Node(f"{name}:quantize", "quantize", [floats], held, "int8"))
        graph.add(Node(f"{name}:dequantize", "dequantize", [held], name, "int8"))


def _is_supported(graph: NodeGraph, node: Node) -> bool:
    """Whether a transpose may pass this node of a kind that has a rule."""
    if node.kind == "activation":
        return node.function in _SIMPLE and not node.weight_bytes
    if node.kind in ("max_pool", "avg_pool", "global_avg_pool"):
        return node.format == "int8" or (node.kind == "max_pool" and graph.values[node.output].width == _BYTES)
    if node.kind == "copy":
        return node.function in ("Pad", "Slice", "Tile", "Split")
    return True


_Handler = Callable[[TransposeOptimizer, Node, Node], bool]
_HANDLERS: Mapping[str, _Handler] = {
    **dict.fromkeys(
        ("activation", "quantize", "dequantize", "add", "mul", "select", "copy"), TransposeOptimizer.through
    ),
    **dict.fromkeys(("concat", "softmax"), TransposeOptimizer.through_axes),
    "reduce": TransposeOptimizer.through_reduction,
    **dict.fromkeys(("max_pool", "avg_pool", "global_avg_pool"), TransposeOptimizer.through_pool),
    "resize": TransposeOptimizer.through_resize,
    "view": TransposeOptimizer.through_view,
    "transpose": TransposeOptimizer.merge,
}
