"""A node with the bytes it moves and its sizes: a kernel."""

from __future__ import annotations

from kneepoint.hardware_models.geometry import geometry_of
from kneepoint.hardware_models.kernels import Kernel
from kneepoint.hardware_models.nodes import Node, NodeGraph


def kernel_of(graph: NodeGraph, node: Node) -> Kernel:
    """The kernel that ``node`` runs as."""
    output = graph.values[node.output]
    elements = sum(graph.values[name].elements for name in (node.output, *node.also))
    buffers = tuple(filter(None, (graph.values[name].buffer for name in node.inputs)))
    weight = node.operator.weight if node.operator is not None else None
    return Kernel(
        name=node.name,
        kind=node.kind,
        format=node.format,
        macs=node.macs,
        input_bytes=_read_bytes(graph, node),
        weight_bytes=node.weight_bytes,
        output_bytes=0 if node.kind == "view" else elements * output.width,
        elements=elements,
        operators=node.operators,
        function=node.functions,
        reads=buffers,
        writes=output.buffer,
        sparsity=weight.sparsity if weight is not None and node.macs else "dense",
        layout=node.layout,
        geometry=geometry_of(graph, node),
    )


def _read_bytes(graph: NodeGraph, node: Node) -> int:
    """A copy reads what it writes at most, a view nothing; all others read all of their inputs."""
    if node.kind == "view":
        return 0
    values = [graph.values[name] for name in node.inputs]
    read = sum(value.elements * value.width for value in values)
    if node.kind == "copy":
        written = sum(graph.values[name].elements for name in (node.output, *node.also))
        read = min(read, written * values[0].width)
    return read
