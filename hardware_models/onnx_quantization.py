"""Rules for ONNX nodes that quantize: a pair becomes the format of the tensor it stands on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import onnx
from onnx import TensorProto

from kneepoint.hardware_models.onnx_constants import SHAPE_SOURCES, integer
from kneepoint.hardware_models.onnx_graph import OnnxGraph
from kneepoint.hardware_models.operators import Format

_FORMATS: Mapping[int, Format] = {
    TensorProto.INT8: "uint8",
    TensorProto.UINT8: "uint8",
    TensorProto.INT16: "uint16",
    TensorProto.UINT16: "uint16",
}


def lower_quantize(graph: OnnxGraph, node: onnx.NodeProto) -> None:
    """QuantizeLinear: gives the tensor its format, or a second, quantized tensor beside the float one."""
    target = _target(graph, node)
    if target is None:
        return graph.other(node)
    source = graph.name(node.input[0])
    tensor = graph.tensors[source]
    if tensor.format == "fp32" and _only_quantized(graph, node.input[0]):
        graph.hand_on(node, source)
        graph.tensors[source] = replace(tensor, format=target)
        return None
    graph.emit(node, "view", function="quantize", inputs=(source,))
    graph.tensors[node.output[0]] = replace(graph.tensors[node.output[0]], format=target)
    return None


def lower_dequantize(graph: OnnxGraph, node: onnx.NodeProto) -> None:
    """DequantizeLinear: its output is read under the tensor's own name."""
    source = graph.name(node.input[0])
    given = _FORMATS.get(graph.types.get(source, TensorProto.UNDEFINED))
    if given is not None:
        graph.tensors[source] = replace(graph.tensors[source], format=given)
    if graph.tensors[source].format == "fp32":
        return graph.other(node)
    return graph.hand_on(node, source)


def lower_dynamic_quantize(graph: OnnxGraph, node: onnx.NodeProto) -> None:
    """DynamicQuantizeLinear in front of products with weights, whose kernels do it themselves."""
    readers = graph.readers.get(node.output[0], [])
    products = all(
        reader.op_type == "MatMulInteger" and reader.input[0] == node.output[0] and reader.input[1] in graph.constants
        for reader in readers
    )
    if not readers or not products:
        return graph.other(node)
    graph.quantized[node.output[0]] = graph.name(node.input[0])
    graph.ranges[node.output[1]] = None
    return None


def absorb_ranges(graph: OnnxGraph, node: onnx.NodeProto) -> bool:
    """Whether ``node`` multiplies by the range of a dynamically quantized value: then it is part of the product."""
    for value, factor in (tuple(node.input), tuple(node.input)[::-1]):
        if factor not in graph.ranges:
            continue
        if value in graph.constants:  # the step of the value times the scales of the weight
            graph.ranges[node.output[0]] = graph.constants.found[value]
            return True
        layer, scales = graph.written_by(value), graph.ranges[factor]
        if layer is not None and layer.dynamic and layer.weight is not None:
            weight = replace(layer.weight, scales=scales.elements if scales else 0)
            graph.replace(layer, replace(layer, weight=weight))
            graph.hand_on(node, layer.output)
            return True
    return False


def _target(graph: OnnxGraph, node: onnx.NodeProto) -> Format | None:
    zero_point = graph.constants.data_type(node.input[2]) if len(node.input) > 2 else None
    return _FORMATS.get(zero_point or integer(node, "output_dtype", 0) or TensorProto.UINT8)


def _only_quantized(graph: OnnxGraph, name: str) -> bool:
    """Whether nobody reads the float tensor before it is quantized."""
    if any(value.name == name for value in graph.graph.output):
        return False
    return all(
        reader.op_type == "QuantizeLinear" and _target(graph, reader) is not None
        for original in graph.originals(name)
        for reader in graph.readers.get(original, ())
        if reader.output[0] not in graph.originals(name) and reader.op_type not in SHAPE_SOURCES
    )
