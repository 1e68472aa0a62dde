"""Float convolutions on x86 compute with channels in blocks, and what stands between them stays so where it can.

The rules are those of ONNX Runtime's NCHWc transformer (onnxruntime/core/optimizer/nchwc_transformer.cc, version 1.31,
where blocks have 16 channels), tried on small graphs. A value is reordered once for all that read it the other way.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from kneepoint.hardware_models.fusion_graph import CONVOLUTIONS
from kneepoint.hardware_models.node_fusion import fuse_activation, fuse_sum
from kneepoint.hardware_models.nodes import Node, NodeGraph
from kneepoint.hardware_models.operators import FP32_BYTES
from kneepoint.hardware_models.permutations import channels_first, channels_last

BLOCK = 16
_ALIGNMENT = 4
"""What is reordered into blocks has channels in multiples of this."""
_IMAGES = 4
_FUSED = frozenset({"relu", "sigmoid", "tanh", "hardsigmoid", "hardswish"})
_ELEMENTWISE = _FUSED | {"gelu", "silu"}


def block_channels(graph: NodeGraph) -> None:
    """Let every node that can compute with channels in blocks do so, and reorder around the others; in place."""
    if any(node.kind in (*CONVOLUTIONS, "max_pool", "avg_pool") and node.format == "fp32" for node in graph.nodes):
        _Blocking(graph).run()


@dataclass
class _Blocking:
    """The state of one walk.

    Attributes:
        graph: Is changed.
        blocked: Values in blocks, and how often each was read when it was written.
        direct: Nodes that read all their inputs in blocks.
        reordered: For every value that was reordered into blocks, the value in blocks.
    """

    graph: NodeGraph
    blocked: dict[str, int] = field(default_factory=dict)
    direct: set[int] = field(default_factory=set)
    reordered: dict[str, str] = field(default_factory=dict)

    def run(self) -> None:
        """Walk over the nodes, then reorder what is still read as it was."""
        present = {id(node) for node in self.graph.nodes}
        for node in [*self.graph.nodes]:
            if id(node) in present:
                gone = self._visit(node)
                present.discard(id(gone))
        self._reorder_outputs()
        for node in [*self.graph.nodes]:
            if node.kind == "transpose" and not self.graph.uses(node.output) and node.output in self.graph.producer:
                self.graph.discard(node)
        self.graph.sort()

    def _visit(self, node: Node) -> Node | None:
        """Turns one node to blocks where it can be; returns it if it was fused into another."""
        if node.format != "fp32" or node.output not in self.graph.values:
            return None
        if node.kind in CONVOLUTIONS:
            self._convolution(node)
        elif node.kind in ("max_pool", "avg_pool"):
            self._pool(node)
        elif node.inputs and all(name in self.blocked for name in node.inputs):
            return self._between(node)
        return None

    def _convolution(self, node: Node) -> None:
        shape = self.graph.values[node.inputs[0]].shape
        if len(shape) != _IMAGES or node.operator is None or not _is_blocked_convolution(node, shape[1]):
            return
        if _reads_rows(node):
            self._write(node)
        else:
            self._read(node)
            self._write(node)

    def _pool(self, node: Node) -> None:
        shape = self.graph.values[node.inputs[0]].shape
        if node.function == "ceil":  # which averages over padding, too
            return
        if len(shape) == _IMAGES and shape[1] % BLOCK == 0 and self.graph.values[node.inputs[0]].width == FP32_BYTES:
            self._read(node)
            self._write(node)

    def _between(self, node: Node) -> Node | None:
        """A node all of whose inputs are in blocks."""
        shapes = [self.graph.values[name].shape for name in node.inputs]
        if node.kind == "activation":
            return self._activation(node)
        if node.kind == "add" and not node.function and len(set(shapes)) == 1 and len(shapes) > 1:
            return self._sum(node)
        if node.kind == "transpose" and node.axes == channels_last(_IMAGES):
            self._reorder_transposed(node)
        elif node.kind == "batch_norm" or _scales_channels(node, shapes[0]):
            _as_convolution(node, shapes[0])
            self._stay(node)
        elif _stays_blocked(node, shapes):
            self._stay(node)
        return None

    def _activation(self, node: Node) -> Node | None:
        if node.function not in _ELEMENTWISE:
            return None
        before = self.graph.producer[node.inputs[0]]
        if node.function in _FUSED and self._takes(before) and not before.activation:
            fuse_activation(self.graph, before, node)
            self._write(before)
            return node
        self._stay(node)
        return None

    def _sum(self, node: Node) -> Node | None:
        for name in node.inputs:
            before = self.graph.producer[name]
            if self._takes(before) and not before.activation and not before.sums:
                fuse_sum(self.graph, before, node)
                self._write(before)
                return node
        self._stay(node)
        return None

    def _takes(self, node: Node) -> bool:
        return node.kind in CONVOLUTIONS and self.blocked.get(node.output) == 1

    def _stay(self, node: Node) -> None:
        self.direct.add(id(node))
        self._write(node)

    def _write(self, node: Node) -> None:
        node.layout = "blocked"
        self.blocked[node.output] = self.graph.uses(node.output)

    def _read(self, node: Node) -> None:
        """Let ``node`` read blocks: those that are there, or what is reordered into them."""
        name = node.inputs[0]
        self.direct.add(id(node))
        if name not in self.blocked:
            self.graph.read_instead(node, name, self._reorder_input(name))

    def _reorder_input(self, name: str) -> str:
        if name not in self.reordered:
            written = self.reordered[name] = self.graph.derive(f"{name}:blocked", name)
            before = self.graph.producer.get(name)
            node = Node(written, "reorder", [name], written, function="input")
            if before is not None and before.kind == "transpose" and before.axes == channels_first(_IMAGES):
                node.inputs, node.layout = [before.inputs[0]], "nhwc"
            self.graph.add(node)
        return self.reordered[name]

    def _reorder_transposed(self, node: Node) -> None:
        node.kind, node.function, node.layout, node.axes = "reorder", "output", "nhwc", ()
        self.direct.add(id(node))

    def _reorder_outputs(self) -> None:
        graph = self.graph
        for name in self.blocked:
            if name not in graph.producer:  # it was fused away
                continue
            readers = [node for node in graph.readers.get(name, ()) if id(node) not in self.direct]
            readers = [node for node in readers if not (node.sums and node.inputs[0] != name)]
            if not readers and name not in graph.outputs:
                continue
            node = graph.producer[name]
            inner = graph.derive(f"{name}:blocked", name)
            for reader in [reader for reader in graph.readers.get(name, ()) if reader not in readers]:
                graph.read_instead(reader, name, inner)
            node.output = inner
            graph.producer[inner] = node
            graph.add(Node(f"{name}:reorder", "reorder", [inner], name, function="output"))


def _reads_rows(node: Node) -> bool:
    """Whether a convolution of so few channels reads them as they are."""
    weight = node.operator.weight if node.operator is not None else None
    return node.kind == "conv" and weight is not None and weight.shape[1] < BLOCK


def _is_blocked_convolution(node: Node, channels: int) -> bool:
    weight = node.operator.weight if node.operator is not None else None
    if weight is None or weight.format == "int8":
        return False
    if node.kind == "conv":
        return channels < BLOCK or channels % _ALIGNMENT == 0
    if node.kind == "depthwise_conv":
        return channels == weight.channels and channels % _ALIGNMENT == 0
    groups = channels // weight.shape[1]
    return weight.shape[1] % BLOCK == 0 and (weight.channels // groups) % BLOCK == 0


def _stays_blocked(node: Node, shapes: list[tuple[int, ...]]) -> bool:
    if any(len(shape) != _IMAGES for shape in shapes):
        return False
    if node.kind == "concat":
        return node.axes == (1,) and all(shape[1] % BLOCK == 0 for shape in shapes)
    if node.kind == "global_avg_pool":
        return shapes[0][1] % BLOCK == 0
    if node.kind == "mul":
        return not node.function and len(shapes) > 1 and len(set(shapes)) == 1
    return node.kind == "resize" and node.function in ("nearest", "linear")


def _scales_channels(node: Node, shape: tuple[int, ...]) -> bool:
    """Whether each channel is multiplied by a constant of its own."""
    channels = (shape[1], *[1] * (len(shape) - 2)) if len(shape) == _IMAGES else ()
    return node.kind == "mul" and not node.function and node.operand in (channels, (1, *channels)) and bool(channels)


def _as_convolution(node: Node, shape: tuple[int, ...]) -> None:
    """Multiplying each channel by a constant, and adding one, is a depthwise convolution."""
    node.macs = shape[0] * shape[1] * shape[2] * shape[3]
    node.weight_bytes = FP32_BYTES * shape[1] * (1 + (node.kind == "batch_norm"))
    node.kind, node.operand = "depthwise_conv", None
