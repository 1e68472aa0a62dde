"""Integer convolutions compute with channels last: ONNX Runtime puts transposes around them and moves those away."""

from __future__ import annotations

from kneepoint.hardware_models.fusion_graph import CONVOLUTIONS
from kneepoint.hardware_models.nodes import Node, NodeGraph
from kneepoint.hardware_models.permutations import channels_first, channels_last
from kneepoint.hardware_models.transposes import TransposeOptimizer


def put_channels_last(graph: NodeGraph) -> None:
    """Turn every integer convolution, and what transposes pass on their way, to channels last; in place."""
    found = [node for node in graph.nodes if node.kind in CONVOLUTIONS and node.format == "int8"]
    if found:
        optimizer = TransposeOptimizer(graph)
        for node in found:
            _wrap(optimizer, node)
        graph.sort()
        optimizer.run()


def _wrap(optimizer: TransposeOptimizer, node: Node) -> None:
    rank = len(optimizer.graph.values[node.output].shape)
    optimizer.transpose_input(node, 0, channels_last(rank))
    optimizer.transpose_output(node, channels_first(rank))
    node.layout = "nhwc"
