"""Which rule lowers which ONNX node, and the rules for nodes without a weight."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import onnx
from onnx import TensorProto

from kneepoint.hardware_models.onnx_constants import Constant, attribute, integer, integers
from kneepoint.hardware_models.onnx_graph import OnnxGraph
from kneepoint.hardware_models.onnx_layers import (
    absorb_bias,
    absorb_scales,
    lower_batch_norm,
    lower_conv,
    lower_conv_transpose,
    lower_gather,
    lower_gather_blocks,
    lower_gemm,
    lower_matmul,
    lower_matmul_integer,
    lower_matmul_nbits,
)
from kneepoint.hardware_models.onnx_quantization import (
    absorb_ranges,
    lower_dequantize,
    lower_dynamic_quantize,
    lower_quantize,
)

# fmt: off
ACTIVATIONS = frozenset({
    "Abs", "Celu", "Clip", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Log", "Mish",
    "Neg", "Pow", "PRelu", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Softplus", "Softsign", "Sqrt", "Swish",
    "Tanh", "ThresholdedRelu",
})
# fmt: on
"""Operators of one tensor that compute every element alone."""
_VIEWS = frozenset({"Reshape", "Flatten", "Identity", "Dropout", "Squeeze", "Unsqueeze"})
_LINEAR_PLACES = (b"half_pixel", b"asymmetric", b"align_corners")
_SCALED = 3
"""Inputs of a Resize that is given scales, rather than sizes."""
_STANDARD = ("", "ai.onnx")
_CONTRIBUTED = frozenset({"MatMulNBits", "GatherBlockQuantized"})
"""ONNX Runtime's own operators that are known."""
_PLAIN = {
    "Concat": "concat",
    "GlobalAveragePool": "global_avg_pool",
    "Resize": "resize",
    "Softmax": "softmax",
    "Transpose": "transpose",
}


def lower_node(graph: OnnxGraph, node: onnx.NodeProto) -> None:
    """Lower one node, by its rule or as an operator that the table does not know."""
    if graph.constants.fold(node):
        return
    known = node.domain in _STANDARD or node.op_type in _CONTRIBUTED
    rule = _RULES.get(node.op_type, OnnxGraph.other) if known else OnnxGraph.other
    rule(graph, node)


def _lower_activation(graph: OnnxGraph, node: onnx.NodeProto) -> None:
    function = {"Swish": "silu"}.get(node.op_type, node.op_type.lower())
    if node.op_type == "PRelu":
        graph.count(graph.constants.operand(node, 1))
    graph.emit(node, "activation", function=function, inputs=graph.inputs(node)[:1])


def _lower_norm(graph: OnnxGraph, node: onnx.NodeProto) -> None:
    kind = "layer_norm" if node.op_type == "LayerNormalization" else "group_norm"
    graph.count(graph.constants.operand(node, 1), graph.constants.operand(node, 2))
    rank = len(graph.input(node).shape)
    axes = tuple(range(integer(node, "axis", -1) % rank, rank)) if kind == "layer_norm" else ()
    graph.emit(node, kind, inputs=graph.inputs(node)[:1], axes=axes)


def _lower_add(graph: OnnxGraph, node: onnx.NodeProto) -> None:
    constant = graph.constants.operand(node, 0) or graph.constants.operand(node, 1)
    if constant is None:
        return graph.emit(node, "add", function=_elementwise_function(node))
    if node.op_type == "Add" and absorb_bias(graph, node, constant):
        return None
    return _emit_with_constant(graph, node, "add", constant)


def _lower_mul(graph: OnnxGraph, node: onnx.NodeProto) -> None:
    if node.op_type == "Mul" and absorb_ranges(graph, node):
        return None
    constant = graph.constants.operand(node, 0) or graph.constants.operand(node, 1)
    if constant is not None:
        return _emit_with_constant(graph, node, "mul", constant)
    if node.op_type == "Mul" and (absorb_scales(graph, node) or _is_silu(graph, node)):
        return None
    return graph.emit(node, "mul", function=_elementwise_function(node))


def _emit_with_constant(graph: OnnxGraph, node: onnx.NodeProto, kind: str, constant: Constant) -> None:
    graph.count(constant)
    factor = kind == "mul" and constant.elements == 1 and (node.op_type == "Mul" or node.input[1] in graph.constants)
    graph.emit(node, kind, function="scale" if factor else _elementwise_function(node), operand=constant.shape)


def _is_silu(graph: OnnxGraph, node: onnx.NodeProto) -> bool:
    """Whether ``node`` is x * sigmoid(x), which is then one activation in place of two operators."""
    for value, gate in (tuple(node.input), tuple(node.input)[::-1]):
        sigmoid = graph.producer(gate)
        if sigmoid and sigmoid.function == "sigmoid" and sigmoid.inputs == (graph.name(value),):
            break
    else:
        return False
    if sigmoid is not graph.operators[-1] or graph.tensors[sigmoid.output].format != "fp32":
        return False
    graph.drop_last()
    graph.reads[sigmoid.inputs[0]] -= 1  # one operator reads it now
    graph.emit(node, "activation", function="silu", inputs=sigmoid.inputs)
    return True


def _lower_cast(graph: OnnxGraph, node: onnx.NodeProto) -> None:
    """To floats it is part of what looked up rows, or of a product of integers."""
    before = graph.written_by(node.input[0])
    if attribute(node, "to") == TensorProto.FLOAT and before is not None and before.weight is not None:
        looked_up = before.kind == "embedding" and before.weight.format != "fp32"
        if looked_up or (before.dynamic and not before.weight.scales):
            return graph.hand_on(node, before.output)
    return graph.other(node)


def _lower_reduce_mean(graph: OnnxGraph, node: onnx.NodeProto) -> None:
    rank, axes = len(graph.input(node).shape), graph.axes(node)
    if rank > 2 and axes == tuple(range(2, rank)):
        return graph.emit(node, "global_avg_pool", inputs=graph.inputs(node)[:1], axes=axes)
    return graph.other(node)


def _lower_pool(graph: OnnxGraph, node: onnx.NodeProto) -> None:
    kind = "avg_pool" if node.op_type == "AveragePool" else "max_pool"
    stride = (integers(node, "strides") or (1,))[0]
    ceil = kind == "avg_pool" and integer(node, "ceil_mode", 0) and integer(node, "count_include_pad", 0)
    function = "ceil" if ceil else ""
    graph.emit(node, kind, kernel=integers(node, "kernel_shape"), stride=stride, function=function)


def _lower_pad(graph: OnnxGraph, node: onnx.NodeProto) -> None:
    """With the axes that are padded, if it is with zeros: the last where there is nothing to pad."""
    before, after = graph.input(node).shape, graph.shapes.get(node.output[0], ())
    amounts = graph.constants.values(node.input[1]) if len(node.input) > 1 else None
    value = graph.constants.number(node.input[2]) if len(node.input) > 2 and node.input[2] else 0.0
    zeros = attribute(node, "mode", b"constant") == b"constant" and value == 0
    plain = zeros and amounts is not None and min(amounts) >= 0 and len(before) == len(after)
    padded = tuple(axis for axis, size in enumerate(before) if plain and after[axis] != size)
    axes = padded or (len(before) - 1,) if plain else ()
    graph.emit(node, "copy", function="Pad", inputs=graph.inputs(node)[:1], axes=axes)


def _lower_plain(graph: OnnxGraph, node: onnx.NodeProto) -> None:
    graph.count_operands(node)
    graph.emit(node, _PLAIN[node.op_type])


def _lower_transpose(graph: OnnxGraph, node: onnx.NodeProto) -> None:
    rank = len(graph.input(node).shape)
    graph.emit(node, "transpose", axes=integers(node, "perm") or tuple(reversed(range(rank))))


def _lower_along_axis(graph: OnnxGraph, node: onnx.NodeProto) -> None:
    """Concat and Softmax."""
    graph.count_operands(node)
    axis = integer(node, "axis", -1) % len(graph.input(node).shape)
    graph.emit(node, _PLAIN[node.op_type], axes=(axis,))


def _lower_resize(graph: OnnxGraph, node: onnx.NodeProto) -> None:
    """``nearest`` and ``linear`` are by whole factors, as blocked kernels do; ``interpolate`` is another linear one."""
    mode = attribute(node, "mode", b"nearest")
    place = attribute(node, "coordinate_transformation_mode", b"half_pixel")
    before, after = graph.input(node).shape, graph.shapes.get(node.output[0], ())
    whole = len(node.input) == _SCALED and not any(b % a for a, b in zip(before, after, strict=False))
    copies = place == b"asymmetric" and attribute(node, "nearest_mode") == b"floor"
    function = "nearest" if mode == b"nearest" and whole and copies else ""
    if mode == b"linear":
        function = "linear" if whole and place in _LINEAR_PLACES else "interpolate"
    graph.emit(node, "resize", function=function, inputs=graph.inputs(node)[:1])


def _lower_view(graph: OnnxGraph, node: onnx.NodeProto) -> None:
    """Whose first axis is read where it is the sample's, or a size that is found: 0."""
    sizes = graph.constants.values(node.input[1]) if node.op_type == "Reshape" and len(node.input) > 1 else (0,)
    axes = (0,) if sizes and sizes[0] == 0 else ()
    graph.emit(node, "view", function=node.op_type.lower(), inputs=graph.inputs(node)[:1], axes=axes)


def _elementwise_function(node: onnx.NodeProto) -> str:
    """Empty for what the kinds ``add`` and ``mul`` are named after."""
    return {"Sub": "sub", "Div": "div"}.get(node.op_type, "")


_Rule = Callable[[OnnxGraph, onnx.NodeProto], None]

_RULES: Mapping[str, _Rule] = {
    "Conv": lower_conv,
    "ConvTranspose": lower_conv_transpose,
    "Gemm": lower_gemm,
    "MatMul": lower_matmul,
    "MatMulInteger": lower_matmul_integer,
    "MatMulNBits": lower_matmul_nbits,
    "Gather": lower_gather,
    "GatherBlockQuantized": lower_gather_blocks,
    "BatchNormalization": lower_batch_norm,
    "LayerNormalization": _lower_norm,
    "GroupNormalization": _lower_norm,
    "Add": _lower_add,
    "Sub": _lower_add,
    "Mul": _lower_mul,
    "Div": _lower_mul,
    "Cast": _lower_cast,
    "ReduceMean": _lower_reduce_mean,
    "MaxPool": _lower_pool,
    "AveragePool": _lower_pool,
    "QuantizeLinear": lower_quantize,
    "DequantizeLinear": lower_dequantize,
    "DynamicQuantizeLinear": lower_dynamic_quantize,
    **dict.fromkeys(_PLAIN, _lower_plain),
    "Transpose": _lower_transpose,
    "Concat": _lower_along_axis,
    "Softmax": _lower_along_axis,
    "Resize": _lower_resize,
    "Pad": _lower_pad,
    **dict.fromkeys(ACTIVATIONS, _lower_activation),
    **dict.fromkeys(_VIEWS, _lower_view),
}
