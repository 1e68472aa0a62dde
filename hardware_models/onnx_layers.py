"""Rules for ONNX nodes with a weight: convolutions, linear layers in all their forms, embeddings."""

from __future__ import annotations

import math
from dataclasses import replace

import onnx

from kneepoint.hardware_models.onnx_constants import Constant, integer, integers
from kneepoint.hardware_models.onnx_graph import OnnxGraph
from kneepoint.hardware_models.operators import Bias, Operator, Weight
from kneepoint.hardware_models.shape_inference import Shape

_CONVOLUTIONS = frozenset({"conv", "depthwise_conv", "grouped_conv", "conv_transpose"})
_TABLE_AXES = 2
_BYTES_LEVEL = 4
"""The accuracy level at which MatMulNBits rounds its input to bytes."""


def lower_conv(graph: OnnxGraph, node: onnx.NodeProto) -> None:
    """Conv."""
    weight = graph.constants.operand(node, 1)
    if weight is None or not graph.inputs(node):
        return graph.other(node)
    out, depth, *kernel = weight.shape
    groups = integer(node, "group", 1)
    kind = "conv" if groups == 1 else "depthwise_conv" if depth == 1 else "grouped_conv"
    macs = _output_elements(graph, node) * depth * math.prod(kernel)
    return _emit_layer(graph, node, kind, weight, weight.shape, out, macs, tuple(kernel))


def lower_conv_transpose(graph: OnnxGraph, node: onnx.NodeProto) -> None:
    """ConvTranspose."""
    weight = graph.constants.operand(node, 1)
    if weight is None or not graph.inputs(node):
        return graph.other(node)
    _, depth, *kernel = weight.shape
    macs = graph.input(node).elements * depth * math.prod(kernel)
    channels = depth * integer(node, "group", 1)
    return _emit_layer(graph, node, "conv_transpose", weight, weight.shape, channels, macs, tuple(kernel))


def lower_gemm(graph: OnnxGraph, node: onnx.NodeProto) -> None:
    """Gemm."""
    weight = graph.constants.operand(node, 1)
    if weight is None or not graph.inputs(node):
        return _emit_matmul(graph, node)
    shape = weight.shape if integer(node, "transB", 0) else weight.shape[::-1]
    macs = graph.shapes[node.output[0]][0] * weight.elements
    return _emit_layer(graph, node, "linear", weight, shape, shape[0], macs)


def lower_matmul(graph: OnnxGraph, node: onnx.NodeProto) -> None:
    """MatMul, of a layer or of two activations."""
    left, right = graph.constants.operand(node, 0), graph.constants.operand(node, 1)
    weight = right or left
    if weight is None:
        return _emit_matmul(graph, node)
    inner = weight.shape[-2] if right and len(weight.shape) > 1 else weight.shape[-1]
    shape = (*weight.shape[:-2], *weight.shape[-2:][::-1]) if right else weight.shape
    channels = weight.shape[-1] if right and len(weight.shape) > 1 else shape[-2] if len(shape) > 1 else 1
    return _emit_layer(graph, node, "linear", weight, shape, channels, _output_elements(graph, node) * inner)


def lower_matmul_integer(graph: OnnxGraph, node: onnx.NodeProto) -> None:
    """MatMulInteger behind DynamicQuantizeLinear: a linear layer with a dynamic range."""
    weight = graph.constants.operand(node, 1)
    source = graph.quantized.get(node.input[0])
    if weight is None or source is None:
        return graph.other(node)
    zero_points = graph.constants.operand(node, 3)
    weight = replace(weight, format="int8", zero_points=zero_points.elements if zero_points else 0)
    macs = _output_elements(graph, node) * weight.shape[0]
    shape = weight.shape[::-1]
    return _emit_layer(graph, node, "linear", weight, shape, shape[0], macs, source=source)


def lower_matmul_nbits(graph: OnnxGraph, node: onnx.NodeProto) -> None:
    """MatMulNBits: a linear layer whose kernel unpacks a weight with scales of groups."""
    packed, scale = graph.constants.operand(node, 1), graph.constants.operand(node, 2)
    if packed is None or scale is None or not graph.inputs(node):
        return graph.other(node)
    out, depth, group = integer(node, "N", 0), integer(node, "K", 0), integer(node, "block_size", 0)
    zero_points, bias = graph.constants.operand(node, 3), graph.constants.operand(node, 5)
    weight = Weight(
        shape=(out, depth),
        stored_bits=integer(node, "bits", 4),
        format="packed",
        channels=out,
        name=packed.root,
        scales=scale.elements,
        zero_points=zero_points.elements if zero_points else 0,
        group_size=group,
    )
    return graph.emit(
        node,
        "linear",
        macs=_output_elements(graph, node) * depth,
        weight=weight,
        bias=_bias(bias),
        inputs=graph.inputs(node)[:1],
        layer=_layer_name(node, packed),
        dynamic=integer(node, "accuracy_level", 0) == _BYTES_LEVEL,
    )


def lower_gather(graph: OnnxGraph, node: onnx.NodeProto) -> None:
    """Gather of rows of a table."""
    table = graph.constants.operand(node, 0)
    if table is None or not table.root or len(table.shape) != _TABLE_AXES or integer(node, "axis", 0) != 0:
        return graph.other(node)
    weight = _weight(table, table.shape, table.shape[1])
    return graph.emit(node, "embedding", weight=weight, layer=_layer_name(node, table))


def lower_gather_blocks(graph: OnnxGraph, node: onnx.NodeProto) -> None:
    """GatherBlockQuantized: rows of a table that has a scale for every group of their elements."""
    table, scale = graph.constants.operand(node, 0), graph.constants.operand(node, 2)
    if table is None or scale is None or len(table.shape) != _TABLE_AXES:
        return graph.other(node)
    bits, width = integer(node, "bits", 4), graph.shapes.get(node.output[0], (0,))[-1]
    weight = Weight(
        shape=(table.shape[0], width),
        stored_bits=bits,
        format="packed",
        channels=width,
        name=table.root,
        scales=scale.elements,
        group_size=integer(node, "block_size", 0),
        filled=False,
    )
    inputs = graph.inputs(node)[:1]
    return graph.emit(node, "embedding", weight=weight, inputs=inputs, layer=_layer_name(node, table))


def lower_batch_norm(graph: OnnxGraph, node: onnx.NodeProto) -> None:
    """BatchNormalization: part of the convolution before it, where there is one."""
    before = graph.producer(node.input[0])
    channels = graph.input(node).shape[1]
    if before and before.kind in _CONVOLUTIONS and before.weight:
        return graph.absorb_bias(node, before, before.bias or Bias(channels))
    graph.count(graph.constants.operand(node, 1), graph.constants.operand(node, 2))
    return graph.emit(node, "batch_norm")


def absorb_bias(graph: OnnxGraph, node: onnx.NodeProto, constant: Constant) -> bool:
    """Whether adding ``constant`` is the bias of the linear layer before ``node``, which then has it."""
    before = graph.producer(next(name for name in node.input if name not in graph.constants))
    if before is None or before.kind != "linear" or before.bias or before.weight is None:
        return False
    if constant.shape != (before.weight.channels,):
        return False
    # Exporters transpose the weight of such a layer under a new name, but keep its bias.
    layer, found, _ = constant.root.partition(".bias")
    graph.absorb_bias(node, before, Bias(constant.elements, constant.root, constant.scales), layer if found else "")
    return True


def absorb_scales(graph: OnnxGraph, node: onnx.NodeProto) -> bool:
    """Whether ``node`` multiplies what was looked up by the scales of its rows, which are then part of the table."""
    for rows, factor in (tuple(node.input), tuple(node.input)[::-1]):
        table, scales = graph.producer(rows), graph.producer(factor)
        if _is_integer_table(table) and _is_column(scales) and scales is graph.operators[-1]:
            break
    else:
        return False
    assert table is not None and table.weight is not None and scales is not None and scales.weight is not None  # noqa: S101, PT018 - what _is_integer_table and _is_column asked
    graph.drop_last()
    graph.reads[scales.inputs[0]] -= 1  # one operator reads the indices now
    graph.replace(table, replace(table, weight=replace(table.weight, scales=scales.weight.elements)))
    graph.hand_on(node, table.output)
    return True


def _is_integer_table(operator: Operator | None) -> bool:
    if operator is None or operator.weight is None:
        return False
    return operator.kind == "embedding" and operator.weight.format == "int8" and not operator.weight.scales


def _is_column(operator: Operator | None) -> bool:
    if operator is None or operator.weight is None:
        return False
    return operator.kind == "embedding" and operator.weight.format == "fp32" and operator.weight.channels == 1


def _emit_layer(
    graph: OnnxGraph,
    node: onnx.NodeProto,
    kind: str,
    constant: Constant,
    shape: Shape,
    channels: int,
    macs: int,
    kernel: Shape = (),
    source: str = "",
) -> None:
    bias = None if source else graph.constants.operand(node, 2)
    graph.emit(
        node,
        kind,
        macs=macs,
        weight=_weight(constant, shape, channels),
        bias=_bias(bias),
        kernel=kernel,
        stride=(integers(node, "strides") or (int(bool(kernel)),))[0],
        inputs=(source,) if source else graph.inputs(node)[:1],
        layer=_layer_name(node, constant),
        dynamic=bool(source),
    )


def _emit_matmul(graph: OnnxGraph, node: onnx.NodeProto) -> None:
    inner = graph.input(node).shape[0 if integer(node, "transA", 0) else -1]
    graph.emit(node, "matmul", macs=_output_elements(graph, node) * inner)


def _weight(constant: Constant, shape: Shape, channels: int) -> Weight:
    return Weight(
        shape,
        constant.stored_bits,
        constant.format,
        channels,
        constant.root,
        constant.scales,
        constant.zero_points,
    )


def _bias(constant: Constant | None) -> Bias | None:
    return Bias(constant.elements, constant.root, constant.scales) if constant else None


def _layer_name(node: onnx.NodeProto, weight: Constant) -> str:
    """The layer's name in PyTorch, which exporters keep as the name of its weight."""
    layer, found, _ = weight.root.partition(".weight")
    return layer if found else node.name


def _output_elements(graph: OnnxGraph, node: onnx.NodeProto) -> int:
    return math.prod(graph.shapes.get(node.output[0], ()))
