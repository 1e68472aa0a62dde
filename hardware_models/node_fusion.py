"""Fusions that ONNX Runtime finds between nodes: transposed operands of products, sums in front of norms, residuals."""

from __future__ import annotations

from kneepoint.hardware_models.fusion_graph import CONVOLUTIONS
from kneepoint.hardware_models.grouping import CONV_ACTIVATIONS
from kneepoint.hardware_models.nodes import Node, NodeGraph
from kneepoint.hardware_models.operators import FP32_BYTES

_MATRIX = 2
_TOKENS = 3
"""Axes of the values whose sum fuses into the norm behind it: (batch, tokens, features)."""
_IMAGES = 4
_PARTS = 2
"""The fewest parts that a split makes."""


def fuse_transposed_operands(graph: NodeGraph) -> None:
    """A float product reads an operand whose last two axes are swapped as it is (FusedMatMul); in place."""
    swaps = {node.output: node for node in graph.nodes if node.kind == "transpose" and _swaps_last(node.axes)}
    for node in [*graph.nodes] if swaps else ():
        if node.format != "fp32" or not _is_matrix_product(graph, node):
            continue
        for name in dict.fromkeys(node.inputs):
            if name in swaps and graph.values[name].width == FP32_BYTES:
                graph.read_instead(node, name, swaps[name].inputs[0])
    for name, node in swaps.items():
        if not graph.uses(name):
            graph.discard(node)
    graph.sort()


def fuse_skip_norms(graph: NodeGraph) -> None:
    """A norm over tokens adds the two values in front of it, and the bias of one, itself (SkipLayerNormalization)."""
    norms = [node for node in graph.nodes if node.kind == "layer_norm"]
    unnamed = _unnamed_batches(graph) if norms else set()
    for norm in norms:
        addition = graph.producer.get(norm.inputs[0])
        if addition is None or not _is_skip(graph, addition) or unnamed.intersection(addition.inputs):
            continue
        _take_summands(graph, norm, addition)
    graph.sort()


def _take_summands(graph: NodeGraph, norm: Node, addition: Node) -> None:
    graph.discard(addition)
    graph.readers[norm.inputs[0]].remove(norm)
    norm.inputs, norm.operators, norm.function = list(addition.inputs), (*addition.operators, *norm.operators), "skip"
    for name in norm.inputs:
        graph.readers[name].append(norm)
    for name in norm.inputs:
        bias = graph.producer.get(name)
        if bias is not None and _is_bias(bias) and graph.uses(name) == 1:
            graph.read_instead(norm, name, bias.inputs[0])
            graph.discard(bias)
            norm.weight_bytes += bias.weight_bytes
            return


def fuse_residuals(graph: NodeGraph) -> None:
    """A bare convolution adds what its only reader adds to it, and its activation (ConvAddActivationFusion)."""
    for addition in [node for node in graph.nodes if node.kind == "add"]:
        if not _is_sum_of_images(graph, addition):
            continue
        taker = next((node for name in addition.inputs if (node := _bare_convolution(graph, name))), None)
        if taker is not None:
            fuse_sum(graph, taker, addition)
            follower = graph.only_reader(taker.output)
            if follower is not None and follower.kind == "activation" and follower.function in CONV_ACTIVATIONS:
                fuse_activation(graph, taker, follower)
    graph.sort()


def split_instead_of_gathering(graph: NodeGraph) -> None:
    """Where each part of an axis is gathered, one split does, with a view behind every part (GatherSliceToSplit)."""
    for name, readers in [*graph.readers.items()]:
        gathers = [node for node in readers if node.kind == "copy" and node.function == "Gather"]
        if len(gathers) < _PARTS or len(gathers) != graph.uses(name) or name not in graph.values:
            continue
        axis = _parted_axis(graph.values[name].shape, graph.values[gathers[0].output].shape, len(gathers))
        if axis is not None:
            for node in gathers:
                _split_and_squeeze(graph, node, axis)
    graph.sort()


def _parted_axis(whole: tuple[int, ...], part: tuple[int, ...], parts: int) -> int | None:
    """The axis along which so many parts, which lack it, make up the whole."""
    axes = (axis for axis, size in enumerate(whole) if size == parts and (*whole[:axis], *whole[axis + 1 :]) == part)
    return next(axes, None)


def _split_and_squeeze(graph: NodeGraph, node: Node, axis: int) -> None:
    written = node.output
    shape = graph.values[written].shape
    node.function, node.output = "Split", graph.derive(f"{written}:part", written, (*shape[:axis], 1, *shape[axis:]))
    graph.producer[node.output] = node
    graph.values[written].buffer = graph.values[node.output].buffer
    graph.add(Node(f"{node.name}:squeeze", "view", [node.output], written, node.format, "squeeze", axes=(0,)))


def merge_splits(graph: NodeGraph) -> None:
    """One kernel writes all parts of what is split."""
    first: dict[str, Node] = {}
    for node in graph.nodes:
        if node.kind != "copy" or node.function != "Split":
            continue
        whole = first.setdefault(node.inputs[0], node)
        if whole is not node:
            graph.discard(node)
            whole.also += (node.output,)
            graph.producer[node.output] = whole
            graph.values[node.output].buffer = graph.values[whole.output].buffer
    graph.sort()


def fuse_sum(graph: NodeGraph, convolution: Node, addition: Node) -> None:
    """Give ``addition`` to the convolution that wrote one of its operands."""
    (other,) = [name for name in addition.inputs if name != convolution.output]
    convolution.sums = True
    graph.absorb(convolution, addition)
    convolution.inputs.append(other)
    graph.readers[other].append(convolution)


def fuse_activation(graph: NodeGraph, convolution: Node, activation: Node) -> None:
    """Give ``activation`` to the convolution before it."""
    convolution.activation = activation.function
    graph.absorb(convolution, activation)


def expand_hardswish(graph: NodeGraph) -> None:
    """What no convolution took runs as two kernels: x hardsigmoid(x)."""
    expanded: list[Node] = []
    for node in graph.nodes:
        expanded.append(node)
        if node.kind != "activation" or node.function != "hardswish":
            continue
        written, node.output = node.output, graph.derive(f"{node.output}:gate", node.output)
        node.function = "hardsigmoid"
        product = Node(f"{node.name}:product", "mul", [node.inputs[0], node.output], written, layout=node.layout)
        expanded.append(product)
    if len(expanded) > len(graph.nodes):
        graph.nodes = expanded
        graph.index()


def _is_sum_of_images(graph: NodeGraph, node: Node) -> bool:
    if node.format != "fp32" or node.function or node.layout == "blocked" or len(node.inputs) != 2:
        return False
    first, second = (graph.values[name].shape for name in node.inputs)
    return first == second and len(first) == _IMAGES


def _bare_convolution(graph: NodeGraph, name: str) -> Node | None:
    node = graph.producer.get(name)
    if node is None or node.kind not in CONVOLUTIONS or node.format != "fp32" or node.layout or graph.uses(name) != 1:
        return None
    biased = node.operator is not None and node.operator.bias is not None
    return node if biased and not node.activation and not node.sums else None


def _is_matrix_product(graph: NodeGraph, node: Node) -> bool:
    """Whether a node is a MatMul; a Gemm has two axes, and a bias."""
    operator = node.operator
    if node.kind != "linear" or operator is None:
        return node.kind == "matmul"
    return operator.bias is None or len(graph.values[node.output].shape) != _MATRIX


def _swaps_last(axes: tuple[int, ...]) -> bool:
    rank = len(axes)
    return rank > 1 and axes == (*range(rank - 2), rank - 1, rank - 2)


def _unnamed_batches(graph: NodeGraph) -> set[str]:
    """Values whose number of samples the runtime does not know to be that of others: behind a reshape to -1 samples."""
    unnamed: set[str] = set()
    for node in graph.nodes:
        computed = node.kind == "view" and not node.axes
        if computed or not unnamed.isdisjoint(node.inputs):
            unnamed.add(node.output)
    return unnamed


def _is_skip(graph: NodeGraph, node: Node) -> bool:
    if node.kind != "add" or node.format != "fp32" or node.function or len(node.inputs) != 2:
        return False
    first, second = (graph.values[name].shape for name in node.inputs)
    return first == second and len(first) == _TOKENS and graph.uses(node.output) == 1


def _is_bias(node: Node) -> bool:
    return node.kind == "add" and node.format == "fp32" and node.operand is not None and len(node.operand) == 1
