"""Are the kernels that a model is priced on those that ONNX Runtime executes? The runtime's own graph says."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import onnx
from onnx import GraphProto, NodeProto, TensorProto

from kneepoint.deployment.runtime import open_session
from kneepoint.hardware_models import FUSION_RULES, Kernel, fuse, read_onnx
from kneepoint.hardware_models.onnx_constants import attribute, integer
from kneepoint.hardware_models.onnx_rules import ACTIVATIONS
from kneepoint.hardware_models.operators import ONNX_KINDS

_BLOCKED_DOMAIN = "com.microsoft.nchwc"
_FLOAT = "fp32"
_BYTES_LEVEL = 4
"""The accuracy level at which MatMulNBits rounds its input to bytes."""
_BYTES = "int8"


class Shown(NamedTuple):
    """What the runtime's graph shows of a kernel.

    Attributes:
        kind: Of the kernel.
        format: What it computes with; empty for kinds that move elements of any type.
        layout: Of convolutions, pools and reorders; empty for others, whose nodes do not say.
        function: The activation of a convolution, with ``add`` before it; what an activation computes; the direction of
            a reorder. Empty for integer kernels, whose clamping is free.
    """

    kind: str
    format: str
    layout: str = ""
    function: str = ""


_KINDS: Mapping[str, tuple[str, str]] = {
    **{name: (kind, _FLOAT) for name, kind in ONNX_KINDS.items()},
    **dict.fromkeys(("Gemm", "FusedGemm"), ("linear", _FLOAT)),
    "QGemm": ("linear", _BYTES),
    "DynamicQuantizeMatMul": ("linear", "dynamic"),
    "ConvTranspose": ("conv_transpose", _FLOAT),
    **dict.fromkeys(("Add", "Sub"), ("add", _FLOAT)),
    **dict.fromkeys(("Mul", "Div"), ("mul", _FLOAT)),
    "QLinearAdd": ("add", _BYTES),
    "QLinearMul": ("mul", _BYTES),
    "QLinearConcat": ("concat", _BYTES),
    "QLinearSoftmax": ("softmax", _BYTES),
    "Concat": ("concat", _FLOAT),
    "Softmax": ("softmax", _FLOAT),
    **dict.fromkeys(("LayerNormalization", "SkipLayerNormalization"), ("layer_norm", _FLOAT)),
    "GroupNormalization": ("group_norm", _FLOAT),
    "BatchNormalization": ("batch_norm", _FLOAT),
    **dict.fromkeys(("MaxPool", "NhwcMaxPool"), ("max_pool", _FLOAT)),
    "AveragePool": ("avg_pool", _FLOAT),
    "QLinearAveragePool": ("avg_pool", _BYTES),
    "GlobalAveragePool": ("global_avg_pool", _FLOAT),
    "QLinearGlobalAveragePool": ("global_avg_pool", _BYTES),
    **dict.fromkeys(("Resize", "Upsample"), ("resize", _FLOAT)),
    **dict.fromkeys(("ReorderInput", "ReorderOutput"), ("reorder", _FLOAT)),
    "Transpose": ("transpose", _FLOAT),
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), ("view", _FLOAT)),
    **dict.fromkeys(("QuantizeLinear", "DynamicQuantizeLinear"), ("quantize", _BYTES)),
    "DequantizeLinear": ("dequantize", _BYTES),
    **dict.fromkeys(("QLinearSigmoid", "QLinearLeakyRelu"), ("activation", _BYTES)),
}
_ACTIVATIONS: Mapping[str, str] = {"BiasGelu": "gelu", "FastGelu": "gelu", "QuickGelu": "silu"}
_MOVERS = frozenset({"transpose", "view", "max_pool", "copy", "resize"})
"""Kinds that move elements of any type, so that a node does not say which."""
_LAID_OUT = frozenset({"conv", "depthwise_conv", "grouped_conv", "max_pool", "avg_pool", "global_avg_pool", "reorder"})
_STORED = frozenset({TensorProto.INT8, TensorProto.UINT8, TensorProto.FLOAT16})


def kernel_differences(model: onnx.ModelProto, rules: Collection[str] = FUSION_RULES) -> dict[Shown, tuple[int, int]]:
    """Kernels that are not executed as often as the fusion rules say.

    Args:
        model: With its weights.
        rules: Those that the runtime applies on this machine at its highest level.

    Returns:
        How often each such kernel is predicted, and how often it is executed; empty where all agree.

    Raises:
        InputError: If ONNX Runtime cannot load the model.
        DeviceError: If the model cannot be read.
    """
    predicted = predicted_kernels(fuse(read_onnx(model), rules))
    executed = executed_kernels(model)
    return {
        shown: (predicted[shown], executed[shown])
        for shown in sorted(predicted.keys() | executed.keys())
        if predicted[shown] != executed[shown]
    }


def predicted_kernels(kernels: Iterable[Kernel]) -> Counter[Shown]:
    """What the runtime's graph would show of ``kernels``."""
    return Counter(_shown(kernel.kind, kernel.format, kernel.layout, kernel.function) for kernel in kernels)


def executed_kernels(model: onnx.ModelProto) -> Counter[Shown]:
    """The kernels of the graph that ONNX Runtime executes; arithmetic on the sizes of free axes is left aside.

    Raises:
        InputError: If ONNX Runtime cannot load the model.
    """
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "optimized.onnx"
        open_session(model.SerializeToString(), optimized=path)
        graph = onnx.load(str(path)).graph
    return Counter(_described(graph))


def _described(graph: GraphProto) -> Iterable[Shown]:
    constants = {entry.name: entry for entry in graph.initializer}
    writer = {name: node for node in graph.node for name in node.output}
    sizes: set[str] = set()
    for node in graph.node:
        read = [name for name in node.input if name and name not in constants]
        if node.op_type == "Shape" or (read and all(name in sizes for name in read)):
            sizes.update(node.output)
        else:
            yield _of_node(node, constants, writer)


def _of_node(node: NodeProto, constants: Mapping[str, TensorProto], writer: Mapping[str, NodeProto]) -> Shown:
    blocked = node.domain == _BLOCKED_DOMAIN
    last = bool(integer(node, "channels_last", 0)) or node.op_type == "NhwcMaxPool"
    layout = "nhwc" if last else "blocked" if blocked else ""
    if node.op_type in ("Conv", "FusedConv", "QLinearConv"):
        return _convolution(node, constants, layout)
    if node.op_type.startswith("Reorder"):
        return _shown("reorder", _FLOAT, "nhwc" if last else "", node.op_type.removeprefix("Reorder").lower())
    if product := _product(node, constants):
        return _shown(*product)
    if node.op_type == "GatherBlockQuantized":
        return _shown("embedding", f"packed{integer(node, 'bits', 4)}")
    if node.op_type == "Gather":
        table = constants.get(node.input[0])
        looked_up = table is not None and len(table.dims) > 1 and not integer(node, "axis", 0)
        stored = looked_up and table is not None and table.data_type in (TensorProto.INT8, TensorProto.UINT8)
        return _shown("embedding" if looked_up else "copy", _BYTES if stored else _FLOAT)
    if node.op_type == "Cast":
        source = writer.get(node.input[0])
        table = constants.get(source.input[0]) if source is not None and source.op_type == "Gather" else None
        rows = table is not None and table.data_type in _STORED
        return _shown("dequantize", _BYTES) if rows else _shown("select", _FLOAT)
    if node.op_type in _KINDS:
        return _shown(*_KINDS[node.op_type], layout=layout)
    if node.op_type in ACTIVATIONS or node.op_type in _ACTIVATIONS:
        return _shown("activation", _FLOAT, function=_ACTIVATIONS.get(node.op_type, node.op_type.lower()))
    return _shown("other", _FLOAT)


def _convolution(node: NodeProto, constants: Mapping[str, TensorProto], layout: str) -> Shown:
    quantized = node.op_type == "QLinearConv"
    weight = constants.get(node.input[3 if quantized else 1])
    depth = weight.dims[1] if weight is not None else 0
    kind = "conv" if integer(node, "group", 1) == 1 else "depthwise_conv" if depth == 1 else "grouped_conv"
    if quantized:
        return _shown(kind, _BYTES, layout)
    activation = attribute(node, "activation", b"")
    fused = activation.decode().lower() if isinstance(activation, bytes) else ""
    adds = len(node.input) > 3 and bool(node.input[3])
    return _shown(kind, _FLOAT, layout, "+".join(filter(None, ("add" if adds else "", fused))))


def _product(node: NodeProto, constants: Mapping[str, TensorProto]) -> tuple[str, str] | None:
    """Kind and format of a product of matrices that may be one of two activations."""
    formats = {"MatMul": _FLOAT, "FusedMatMul": _FLOAT, "MatMulIntegerToFloat": _BYTES, "QLinearMatMul": _BYTES}
    if node.op_type == "MatMulNBits":
        made = "dynamic" if integer(node, "accuracy_level", 0) == _BYTES_LEVEL else "packed"
        return "linear", f"{made}{integer(node, 'bits', 4)}"
    if node.op_type not in formats:
        return None
    second = 3 if node.op_type == "QLinearMatMul" else 1
    stored = node.input[second] in constants or node.input[0] in constants
    return "linear" if stored else "matmul", formats[node.op_type]


def _shown(kind: str, computes_in: str, layout: str = "", function: str = "") -> Shown:
    """What is compared of a kernel; see :class:`Shown`."""
    shows = kind in ("activation", "reorder") or kind.endswith("conv")
    return Shown(
        kind,
        "" if kind in _MOVERS else computes_in,
        layout if kind in _LAID_OUT else "",
        function if shows and computes_in == _FLOAT else "",
    )
